"""Merging adapters: ours beside peft's `add_weighted_adapter`, both in memory with the adapters loaded.

Compared are the exact sum (peft's `cat`), and the sum brought back to the rank of one adapter (peft's `svd`). peft's
`linear` is not among them: it adds up the factors and not their products, which is another model. Besides the time that
passes, processor seconds are counted: these hardly depend on what else the machine does.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.merge.family import RANK, Family
from benchmarks.merge.tables import ratio, seconds, table
from evomerge.backends.weights.store import WeightStore
from evomerge.recipe.tree import Input, Merge, Source

WEIGHTS = (0.5, 0.3, 0.7)


@dataclass
class Times:
    """Seconds of one way to merge, as they pass and as processors are busy with it."""

    passed: list[float] = field(default_factory=list[float])
    busy: list[float] = field(default_factory=list[float])

    def add(self, merge: Callable[[], object]) -> None:
        """Merge once more, and keep its times."""
        begin, busy = time.perf_counter(), time.process_time()
        merge()
        self.passed.append(time.perf_counter() - begin)
        self.busy.append(time.process_time() - busy)


@dataclass
class Both:
    """What both take for the same merge, in turn."""

    ours: Times = field(default_factory=Times)
    peft: Times = field(default_factory=Times)


def measured(family: Family, adapters: Sequence[Path], repeats: int, *, quick: bool) -> dict[str, Both]:
    """Measure both in turn; if `quick`, without the ways that take peft minutes."""
    store, model = WeightStore(), _peft(family, adapters)
    names = [folder.name for folder in adapters]
    inputs = tuple(
        Input(Source(str(folder)), {"weight": weight}) for folder, weight in zip(adapters, WEIGHTS, strict=True)
    )
    base = Source(str(family.base))
    ways: dict[str, tuple[Merge, dict[str, Any]]] = {
        "cat": (Merge("task_arithmetic", inputs, base), {}),
        "svd": (Merge("task_arithmetic", inputs, base, refactor=RANK), {"svd_rank": RANK}),
    }
    if quick:
        del ways["svd"]
    recipes = {way: store.resolve(recipe, family.base.parent) for way, (recipe, _) in ways.items()}
    found: dict[str, Both] = {}
    for number in range(repeats + 1):
        for way, (_, settings) in ways.items():
            both = Both() if number <= 1 else found[way]  # the first round warms up
            both.ours.add(partial(store.low_rank, recipes[way]))
            both.peft.add(
                partial(model.add_weighted_adapter, names, list(WEIGHTS), "merged", combination_type=way, **settings)
            )
            model.delete_adapter("merged")
            found[way] = both
    return found


def shown(found: Mapping[str, Both]) -> str:
    """Return the table."""
    rows = [
        (
            f"`{way}`",
            seconds(both.ours.passed),
            seconds(both.peft.passed),
            ratio(both.peft.passed, both.ours.passed),
            seconds(both.ours.busy),
            seconds(both.peft.busy),
            ratio(both.peft.busy, both.ours.busy),
        )
        for way, both in found.items()
    ]
    header = (
        "peft's name for it",
        "evomerge, s",
        "peft, s",
        "times faster",
        "evomerge, processor s",
        "peft, processor s",
        "times less",
    )
    return table(header, rows)


def _peft(family: Family, adapters: Sequence[Path]) -> Any:
    import torch
    from peft import PeftModel
    from transformers import LlamaForCausalLM

    base = LlamaForCausalLM.from_pretrained(family.base, dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(base, str(adapters[0]), adapter_name=adapters[0].name)
    for folder in adapters[1:]:
        model.load_adapter(str(folder), adapter_name=folder.name)
    return model
