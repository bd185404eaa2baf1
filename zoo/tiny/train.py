"""Trains the tiny family from nothing: `python zoo/tiny/train.py --out zoo/tiny`.

Writes the held-out items, the base, one full fine-tune a skill and the adapters, as bf16 safetensors in folders that
transformers and peft load. Deterministic on one build of torch and one kind of processor: fixed seeds, one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import skills
import torch
from model import BOS, EOS, PAD, VOCABULARY, batch_of, build_tokenizer, exact, loss_of
from peft import LoraConfig, PeftModel, get_peft_model
from skills import FULL, SHORT, SKILLS, Item, ItemMaker
from torch import nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

RowMaker = Callable[[random.Random], Item | str]

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
ROWS = 64  # of each step
SENTENCES = 0.1  # the share of plain text in what the base learns from
REPLAY = 0.1  # the share of all skills in what an expert learns from, so that it does not forget them at once


@dataclass(frozen=True)
class Course:
    """How long and how fast a model learns: AdamW, a cosine to a twentieth of `rate`, `ROWS` rows a step."""

    steps: int
    rate: float
    seed: int


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: what it learns, its shape, and how long."""

    maker: ItemMaker
    rank: int
    alpha: int
    targets: tuple[str, ...]
    course: Course
    rslora: bool = False
    replay: float = REPLAY


# The base learns short words well, then a little of the full length: it is past the point where a skill is nothing, and
# far from the point where it is done, so that what the experts add can still be summed.
SHORT_COURSE = Course(steps=600, rate=2e-3, seed=1)
FULL_COURSE = Course(steps=60, rate=5e-4, seed=1)
EXPERTS = {
    "reverse": Course(steps=80, rate=2e-4, seed=11),
    "sort": Course(steps=120, rate=2e-4, seed=12),
    "shift": Course(steps=80, rate=2e-4, seed=13),
    "add": Course(steps=200, rate=2e-4, seed=14),
}
ADAPTERS = {
    "reverse": Adapter(skills.reverse, 8, 16, ATTENTION, Course(100, 3e-3, 21)),
    "sort": Adapter(skills.sort, 4, 8, (*ATTENTION, *MLP), Course(150, 3e-3, 22), rslora=True),
    "shift": Adapter(skills.shift, 2, 8, MLP, Course(100, 4e-3, 23)),
    "add": Adapter(skills.add, 8, 8, (*ATTENTION, *MLP), Course(200, 4e-3, 24)),
    "sort_shift": Adapter(skills.either(skills.sort, skills.shift), 6, 12, ("q_proj", "v_proj"), Course(120, 3e-3, 25)),
    "double": Adapter(skills.double, 4, 4, ("q_proj", "v_proj"), Course(40, 1e-3, 26)),
    "noise": Adapter(skills.noise, 3, 6, ATTENTION, Course(40, 1e-3, 27)),
    "wrong": Adapter(skills.wrong, 5, 10, MLP, Course(60, 5e-3, 28), replay=0),
}


def mixture(lengths: tuple[int, int]) -> ItemMaker:
    """What the base learns from: all four skills, the harder ones more often, with words of these lengths."""
    return skills.either(
        *[skills.add] * 4,
        *[partial(skills.sort, lengths=lengths)] * 2,
        *[partial(skills.reverse, lengths=lengths)] * 2,
        partial(skills.shift, lengths=lengths),
    )


def unseen_only(maker: ItemMaker, held_out: frozenset[str]) -> ItemMaker:
    """`maker`, drawing again whenever the question is one of the held-out items."""

    def make(rng: random.Random) -> Item:
        while (item := maker(rng)).question in held_out:
            pass
        return item

    return make


def rows_of(course: Course, own: RowMaker, other: RowMaker, share: float) -> Iterator[list[Item | str]]:
    """The rows of each step: `own`, but for the share that `other` makes."""
    rng = random.Random(course.seed)
    for _ in range(course.steps):
        yield [(other if rng.random() < share else own)(rng) for _ in range(ROWS)]


def train(model: nn.Module, rows: Iterator[Sequence[Item | str]], course: Course) -> None:
    """Trains those of the model's parameters that ask for gradients, in place."""

    def schedule(step: int) -> float:
        warm = min(1.0, (step + 1) / 20)
        return warm * (0.05 + 0.475 * (1 + math.cos(math.pi * step / course.steps)))

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=course.rate, betas=(0.9, 0.98), weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    model.train()
    for batch in rows:
        optimizer.zero_grad()
        loss_of(model, batch_of(batch)).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        scheduler.step()
    model.eval()


def fresh_base() -> LlamaForCausalLM:
    """An untrained model: 4 layers, 128 wide, 4 heads, embeddings not tied to the output; 0.88M parameters."""
    torch.manual_seed(SHORT_COURSE.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=64,
            tie_word_embeddings=False,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )
    )
    model.generation_config = GenerationConfig(
        max_new_tokens=16, do_sample=False, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS
    )
    return model


def load(folder: Path) -> LlamaForCausalLM:
    """The stored model, computing in float32."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


def rewrite(path: Path, **changes: object) -> None:
    """Changes some keys of a JSON file."""
    content = cast("dict[str, Any]", json.loads(path.read_text())) | changes
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


class Family:
    """The folder being written, with what all its models share."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.tokenizer: PreTrainedTokenizerFast = build_tokenizer()
        self.items = {skill: skills.held_out(skill) for skill in SKILLS}
        self.held_out = frozenset(item.question for items in self.items.values() for item in items)
        self.replayed = unseen_only(mixture(FULL), self.held_out)

    def write_data(self) -> None:
        """Writes the held-out items."""
        (self.out / "data").mkdir(parents=True, exist_ok=True)
        for skill, items in self.items.items():
            lines = [json.dumps({"question": item.question, "answer": item.answer}) + "\n" for item in items]
            (self.out / "data" / f"{skill}.jsonl").write_text("".join(lines))

    def write_tokenizer(self, folder: Path) -> None:
        """Writes the tokenizer into the folder of a model or an adapter."""
        self.tokenizer.save_pretrained(folder)
        # the name that every version of transformers knows, instead of the one of the version at hand
        rewrite(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")

    def write_model(self, model: LlamaForCausalLM, folder: Path) -> None:
        """Writes a full model, rounded to bf16."""
        model.bfloat16().save_pretrained(folder)
        self.write_tokenizer(folder)

    def write_adapter(self, model: PeftModel, targets: Sequence[str], folder: Path) -> None:
        """Writes an adapter, rounded to bf16."""
        model.bfloat16().save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink()  # peft's empty model card
        rewrite(folder / "adapter_config.json", target_modules=sorted(targets))  # peft keeps them as a set
        self.write_tokenizer(folder)

    def make_base(self) -> None:
        """Trains the base on all skills at once."""
        model = fresh_base()
        for course, lengths in ((SHORT_COURSE, SHORT), (FULL_COURSE, FULL)):
            own = unseen_only(mixture(lengths), self.held_out)
            train(model, rows_of(course, own, skills.sentence, SENTENCES), course)
        self.write_model(model, self.out / "base")

    def make_expert(self, skill: str, course: Course) -> None:
        """Trains all weights of the stored base on one skill."""
        model = load(self.out / "base")
        train(model, rows_of(course, unseen_only(SKILLS[skill], self.held_out), self.replayed, REPLAY), course)
        self.write_model(model, self.out / "experts" / skill)

    def make_adapter(self, name: str, adapter: Adapter) -> None:
        """Trains an adapter of the stored base."""
        torch.manual_seed(adapter.course.seed)
        config = LoraConfig(
            r=adapter.rank,
            lora_alpha=adapter.alpha,
            target_modules=list(adapter.targets),
            use_rslora=adapter.rslora,
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(load(self.out / "base"), config)
        model.peft_config["default"].base_model_name_or_path = "zoo/tiny/base"
        own = unseen_only(adapter.maker, self.held_out)
        train(model, rows_of(adapter.course, own, self.replayed, adapter.replay), adapter.course)
        self.write_adapter(cast(PeftModel, model), adapter.targets, self.out / "adapters" / name)

    def figures(self, folder: Path) -> str:
        """Exact match of the stored model on 200 held-out items of each skill, as one line."""
        if (folder / "adapter_config.json").exists():
            model = PeftModel.from_pretrained(load(self.out / "base"), folder).float()
        else:
            model = load(folder)
        return "  ".join(f"{skill} {exact(model, items[:200]).mean():.2f}" for skill, items in self.items.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write the family into")
    parser.add_argument("--only", nargs="*", help="make only these, such as base, experts/sort or adapters/noise")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    family = Family(cast(Path, arguments.out))
    family.write_data()
    work: dict[str, Callable[[], None]] = {"base": family.make_base}
    work |= {f"experts/{skill}": partial(family.make_expert, skill, course) for skill, course in EXPERTS.items()}
    work |= {f"adapters/{name}": partial(family.make_adapter, name, adapter) for name, adapter in ADAPTERS.items()}
    for name in cast("list[str] | None", arguments.only) or work:
        started = time.perf_counter()
        work[name]()
        print(f"{name:20} {time.perf_counter() - started:5.0f} s  {family.figures(family.out / name)}", flush=True)


if __name__ == "__main__":
    main()
