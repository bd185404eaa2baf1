"""The merges that mergekit and evomerge both do, each said to both: one entry a merge.

An entry holds for every family that it names. What is expected is that the results are equal; `split` tells where they
need not be (elements that a tie at a threshold decides), and where mergekit means something else there is no entry here
but a test of its own in test_mergekit.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from evomerge.recipe.tree import Params
from tests.oracle.families import Family

Named = Mapping[str, Any]
Deltas = Sequence[torch.Tensor]
Split = Callable[[Deltas, Sequence[Named]], torch.Tensor]
"""From the task vectors and the parameters of each model to a mask of what a tie decides."""


@dataclass(frozen=True)
class Case:
    """One merge, in our words and in mergekit's; where theirs are not given they are ours."""

    name: str
    method: str
    models: tuple[Params, ...]
    params: Params = field(default_factory=dict[str, Any])
    theirs: Named | None = None
    their_models: tuple[Named, ...] | None = None
    their_method: str | None = None
    base: bool = True
    families: tuple[str, ...] = ("odd", "thin")
    split: Split | None = None
    dtype: str = "float32"
    """What mergekit computes in."""

    def config(self, family: Family) -> dict[str, Any]:
        """The merge in mergekit's YAML."""
        pairs = zip(family.experts, self.their_models or self.models, strict=False)
        config: dict[str, Any] = {
            "merge_method": self.their_method or self.method,
            "models": [{"model": str(expert), "parameters": dict(own)} for expert, own in pairs],
            "parameters": dict(self.params if self.theirs is None else self.theirs),
            "dtype": self.dtype,
            "out_dtype": str(family.dtype).removeprefix("torch."),
        }
        return config | ({"base_model": str(family.base)} if self.base else {})


def cut(magnitude: torch.Tensor, kept: int) -> torch.Tensor:
    """Where a magnitude is the smallest of the `kept` largest, and equal to one that is not among them.

    We call magnitudes equal that are the same number in bf16; mergekit compares them in what it computes in.
    """
    rounded = magnitude.bfloat16()
    ordered = rounded.flatten().sort(descending=True).values
    if not 0 < kept < len(ordered) or ordered[kept - 1] != ordered[kept]:
        return torch.zeros_like(magnitude, dtype=torch.bool)
    return rounded == ordered[kept]


def trimmed(deltas: Deltas, models: Sequence[Named]) -> torch.Tensor:
    """Where the trim of TIES could keep one or another of several equal entries."""
    found = torch.zeros_like(deltas[0], dtype=torch.bool)
    for delta, own in zip(deltas, models, strict=True):
        found |= cut(delta.abs(), max(int(own["density"] * delta.numel()), 1))
    return found


def without_tails(deltas: Deltas, models: Sequence[Named]) -> torch.Tensor:
    """The same for Breadcrumbs, which cuts at two places."""
    found = torch.zeros_like(deltas[0], dtype=torch.bool)
    for delta, own in zip(deltas, models, strict=True):
        size = delta.numel()
        kept, top = int(own["density"] * size), int(own["gamma"] * size)
        bottom = max(size - kept - top, 0)
        found |= cut(delta.abs(), size - bottom) | cut(delta.abs(), size - bottom - kept)
    return found


def weights(*values: float) -> tuple[Named, ...]:
    return tuple({"weight": value} for value in values)


def weighed(*pairs: tuple[float, float]) -> tuple[Named, ...]:
    return tuple({"weight": weight, "density": density} for weight, density in pairs)


CASES = (
    Case("linear", "linear", weights(0.3, 0.9, 0.1), base=False),
    Case("linear, not normalized", "linear", weights(0.3, 0.9, -0.1), {"normalize": False}, base=False),
    Case("task arithmetic", "task_arithmetic", weights(0.4, -0.2, 0.7), {"scale": 0.8}, {"lambda": 0.8}),
    Case("task arithmetic, normalized", "task_arithmetic", weights(0.4, 0.7), {"normalize": True}),
    Case("slerp", "slerp", ({},), {"t": 0.3}),
    Case("slerp, at the end", "slerp", ({},), {"t": 1.0}),
    Case("ties", "ties", weighed((0.4, 0.3), (1.0, 0.5), (0.7, 0.85)), {"scale": 1.2}, {"lambda": 1.2}, split=trimmed),
    Case(
        "ties, summed",
        "ties",
        weighed((0.4, 0.3), (1.0, 0.04)),
        {"merge_func": "sum"},
        {"normalize": False},
        split=trimmed,
    ),
    Case("dare linear, all kept", "dare_linear", weighed((0.4, 1.0), (0.7, 1.0)), {"rescale": "l1"}, {"rescale": True}),
    Case("dare ties, all kept", "dare_ties", weighed((0.4, 1.0), (0.7, 1.0)), {"rescale": "l1"}, {"rescale": True}),
)

RANDOM = (
    Case(
        "dare linear",
        "dare_linear",
        weighed((0.4, 0.6), (-0.7, 0.3)),
        {"rescale": "l1", "scale": 1.2},
        {"rescale": True, "lambda": 1.2},
        families=("large",),
    ),
    Case(
        "dare ties",
        "dare_ties",
        weighed((0.4, 0.6), (0.7, 0.3), (1.0, 0.8)),
        {"rescale": "l1"},
        {"rescale": True},
        families=("large",),
    ),
    Case(
        "dare ties, averaged",
        "dare_ties",
        weighed((0.4, 0.6), (0.7, 0.3)),
        {"rescale": "l1", "merge_func": "mean"},
        {"rescale": True, "normalize": True},
        families=("large",),
    ),
)
"""Both draw masks of their own, so only statistics can agree."""

BELOW_ZERO = Case("ties, weight below zero", "ties", weighed((-1.0, 1.0)), {}, {}, families=("odd",))
UNBIASED = Case("dare linear, unbiased", "dare_linear", weighed((1.0, 0.4)), {}, {"rescale": True}, families=("large",))
IN_BF16 = Case(
    "ties in bf16",
    "ties",
    weighed((1.0, 0.5), (1.0, 0.5), (1.0, 0.5)),
    {},
    {},
    families=("odd",),
    split=trimmed,
    dtype="bfloat16",
)
DIFFERENT = (BELOW_ZERO, UNBIASED, IN_BF16)
"""What mergekit does otherwise; test_mergekit.py says for each what."""
