"""Prints the figures of `zoo/README.md`'s tiny family from its stored weights: `python zoo/tiny/measure.py`.

All figures are greedy exact match in float32 on items that neither training nor the search for a merge has seen. It is
written without evomerge, so that evomerge's own results can be compared with it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nevergrad as ng
import torch
from model import exact
from peft import PeftModel
from peft.tuners import lora
from skills import SKILLS, Item
from torch import Tensor, nn
from transformers import LlamaForCausalLM

FOLDER = Path(__file__).parent
SEARCH = slice(0, 100)  # of each skill: what the search is scored on,
SELECT = slice(100, 200)  # what its five best are compared on,
TEST = slice(200, 1000)  # and what is printed
GROUPS = {"attention": ".self_attn.", "mlp": ".mlp."}

TensorMap = dict[str, Tensor]
Weights = Sequence[float]


@dataclass(frozen=True)
class Row:
    """One line of a table: each skill's hits on the test items, float32 of shape (items,)."""

    name: str
    hits: dict[str, Tensor]

    @property
    def mean(self) -> float:
        """The mean of the skills' exact matches."""
        return sum(float(hit.mean()) for hit in self.hits.values()) / len(self.hits)

    def against(self, other: Row) -> tuple[float, float]:
        """The difference of the means and the half-width of its paired 95 % interval."""
        differences = [self.hits[skill] - other.hits[skill] for skill in self.hits]
        variance = sum(float(difference.var() / len(difference)) for difference in differences) / len(differences) ** 2
        return self.mean - other.mean, 1.96 * variance**0.5


def load_base() -> LlamaForCausalLM:
    """The stored base, computing in float32."""
    return LlamaForCausalLM.from_pretrained(FOLDER / "base", dtype=torch.float32).eval()


def task_vector(folder: Path, base: TensorMap) -> TensorMap:
    """What a full fine-tune adds to the base's tensors."""
    tuned = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    return {name: tensor - base[name] for name, tensor in tuned.items()}


def adapter_delta(folder: Path) -> TensorMap:
    """What an adapter adds to the base's tensors, its scaling included."""
    adapted = cast(nn.Module, PeftModel.from_pretrained(load_base(), folder)).float()
    return {
        name.removeprefix("base_model.model.") + ".weight": module.get_delta_weight("default").detach()
        for name, module in cast("Iterator[tuple[str, nn.Module]]", adapted.named_modules())
        if isinstance(module, lora.Linear)
    }


class Pool:
    """A base and what each member adds to it; answers how well a weighted sum of them does."""

    def __init__(self, members: dict[str, TensorMap]) -> None:
        self.model = load_base()
        self.base = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.members = members
        self.items = {skill: read_items(FOLDER / "data" / f"{skill}.jsonl") for skill in SKILLS}

    def hits(self, weights: Weights, split: slice) -> dict[str, Tensor]:
        """Hits on each skill of base + the weighted sum; weights are one a member, or three (attention, mlp, rest)."""
        per_member = len(weights) // len(self.members)
        merged = {name: tensor.clone() for name, tensor in self.base.items()}
        for position, delta in enumerate(self.members.values()):
            own = weights[position * per_member : (position + 1) * per_member]
            for name, tensor in delta.items():
                merged[name] += own[group_of(name) if per_member > 1 else 0] * tensor
        self.model.load_state_dict(merged)
        return {skill: exact(self.model, items[split]) for skill, items in self.items.items()}

    def row(self, name: str, weights: Weights) -> Row:
        """The figures of one weighted sum on the test items."""
        return Row(name, self.hits(weights, TEST))

    def alone(self, member: str) -> Row:
        """The figures of one member with weight 1."""
        return self.row(member, [float(member == name) for name in self.members])

    def search(self, name: str, genes: int, start: float, trials: int) -> Row:
        """The best of `trials` weights that CMA proposes by exact match, chosen on items of its own."""

        def fitness(split: slice) -> Callable[[Weights], float]:
            return lambda weights: Row("", self.hits(weights, split)).mean

        space = ng.p.Array(init=[start] * genes).set_mutation(sigma=0.2)
        space.random_state.seed(7)
        optimizer = ng.optimizers.CMA(space, budget=trials)
        seen: list[tuple[float, list[float]]] = []
        for _ in range(trials):
            candidate = optimizer.ask()
            weights = cast("list[float]", candidate.value.tolist())
            seen.append((fitness(SEARCH)(weights), weights))
            optimizer.tell(candidate, -seen[-1][0])
        finalists = [weights for _, weights in sorted(seen, reverse=True)[:5]]
        winner = max(finalists, key=fitness(SELECT))
        print(f"{name}: weights {' '.join(f'{weight:.2f}' for weight in winner)}")
        return self.row(name, winner)


def group_of(name: str) -> int:
    """0 for attention, 1 for mlp, 2 for the rest."""
    return next((group for group, part in enumerate(GROUPS.values()) if part in name), len(GROUPS))


def read_items(path: Path) -> list[Item]:
    """The items of one skill, in the file's order."""
    lines = cast("list[dict[str, Any]]", [json.loads(line) for line in path.read_text().splitlines()])
    return [Item(line["question"], line["answer"]) for line in lines]


def table(rows: Sequence[Row], reference: Row) -> str:
    """A Markdown table of the rows, with the paired difference to `reference`."""
    lines = [f"| | {' | '.join(SKILLS)} | mean | against {reference.name} |", "|---|" + "---|" * (len(SKILLS) + 2)]
    for row in rows:
        difference, half = row.against(reference)
        cells = " | ".join(f"{float(hit.mean()):.3f}" for hit in row.hits.values())
        lines.append(f"| {row.name} | {cells} | {row.mean:.3f} | {difference:+.3f} ± {half:.3f} |")
    return "\n".join(lines)


def against_best(searched: Row, alone: Sequence[Row]) -> str:
    """How the searched merge compares with the best of the members, as a sentence."""
    best = max(alone, key=lambda row: row.mean)
    difference, half = searched.against(best)
    return f"{searched.name}: {difference:+.3f} ± {half:.3f} against the best alone ({best.name})\n"


def measure_experts(trials: int) -> None:
    """The table of the base, the full fine-tunes and their merges."""
    base = load_base().state_dict()
    pool = Pool({skill: task_vector(FOLDER / "experts" / skill, base) for skill in SKILLS})
    uniform = pool.row("uniform average", [1 / len(SKILLS)] * len(SKILLS))
    alone = [pool.alone(skill) for skill in SKILLS]
    rows = [pool.row("base", [0.0] * len(SKILLS)), *alone, uniform]
    rows += [pool.row(f"task arithmetic, {scale}", [scale] * len(SKILLS)) for scale in (0.3, 0.5, 0.7)]
    rows.append(pool.search(f"searched, {len(SKILLS)} weights, {trials} trials", len(SKILLS), 0.4, trials))
    rows.append(
        pool.search(f"searched, {3 * len(SKILLS)} weights, {3 * trials} trials", 3 * len(SKILLS), 0.4, 3 * trials)
    )
    print("\n" + table(rows, uniform) + "\n")
    for searched in rows[-2:]:
        print(against_best(searched, alone))


def measure_adapters(trials: int) -> None:
    """The table of the base, the adapters and their exact sums."""
    names = sorted(path.name for path in (FOLDER / "adapters").iterdir())
    pool = Pool({name: adapter_delta(FOLDER / "adapters" / name) for name in names})
    uniform = pool.row("uniform average", [1 / len(names)] * len(names))
    alone = [pool.alone(name) for name in names]
    rows = [pool.row("base", [0.0] * len(names)), *alone, uniform]
    rows.append(pool.row("sum", [1.0] * len(names)))
    rows.append(pool.search(f"searched, {len(names)} weights, {trials} trials", len(names), 0.25, trials))
    print("\n" + table(rows, uniform) + "\n")
    print(against_best(rows[-1], alone))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--trials", type=int, default=100, help="how many merges a search may try; three times as many by groups"
    )
    trials = cast(int, parser.parse_args().trials)
    torch.set_num_threads(1)
    measure_experts(trials)
    measure_adapters(trials)


if __name__ == "__main__":
    main()
