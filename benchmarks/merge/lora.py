"""Merging adapters: ours beside peft's `add_weighted_adapter`, both in memory with the adapters loaded.

Compared are the exact sum (peft's `cat`), and the sum brought back to the rank of one adapter (peft's `svd`). peft's
`linear` is not among them: it adds up the factors and not their products, which is another model.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.merge.family import RANK, Family
from benchmarks.merge.tables import ratio, seconds, table
from evomerge.backends.weights.store import WeightStore
from evomerge.recipe.tree import Input, Merge, Source

WEIGHTS = (0.5, 0.3, 0.7)


@dataclass
class Times:
    """Seconds of one way to merge."""

    ours: list[float] = field(default_factory=list[float])
    peft: list[float] = field(default_factory=list[float])


def measured(family: Family, adapters: Sequence[Path], repeats: int, *, quick: bool) -> dict[str, Times]:
    """Measure both in turn; if `quick`, without the ways that take peft minutes."""
    store, model = WeightStore(), _peft(family, adapters)
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
    found = {way: Times() for way in ways}
    for number in range(repeats + 1):
        for way, (_, settings) in ways.items():
            begin = time.perf_counter()
            store.low_rank(recipes[way])
            between = time.perf_counter()
            names = [folder.name for folder in adapters]
            model.add_weighted_adapter(names, list(WEIGHTS), "merged", combination_type=way, **settings)
            end = time.perf_counter()
            model.delete_adapter("merged")
            if number:
                found[way].ours.append(between - begin)
                found[way].peft.append(end - between)
    return found


def shown(found: Mapping[str, Times]) -> str:
    """Return the table."""
    rows = [
        (f"`{way}`", seconds(times.ours), seconds(times.peft), ratio(times.peft, times.ours))
        for way, times in found.items()
    ]
    return table(("peft's name for it", "evomerge, s", "peft, s", "times faster"), rows)


def _peft(family: Family, adapters: Sequence[Path]) -> Any:
    import torch
    from peft import PeftModel
    from transformers import LlamaForCausalLM

    base = LlamaForCausalLM.from_pretrained(family.base, dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(base, str(adapters[0]), adapter_name=adapters[0].name)
    for folder in adapters[1:]:
        model.load_adapter(str(folder), adapter_name=folder.name)
    return model
