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

from evomerge.recipe.values import Params
from tests.oracle.families import Family

Named = Mapping[str, Any]
Deltas = Sequence[torch.Tensor]
Split = Callable[[torch.Tensor, Deltas, Sequence[Named]], torch.Tensor]
"""From the base, the task vectors and the parameters of each model to a mask of what a tie decides."""


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
    """What mergekit computes in: float64 where float32 would not tell which of two results is right."""

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


def trimmed(base: torch.Tensor, deltas: Deltas, models: Sequence[Named]) -> torch.Tensor:
    """Where the trim of TIES could keep one or another of several equal entries."""
    found = torch.zeros_like(base, dtype=torch.bool)
    for delta, own in zip(deltas, models, strict=True):
        found |= cut(delta.abs(), max(int(own["density"] * delta.numel()), 1))
    return found


def without_tails(base: torch.Tensor, deltas: Deltas, models: Sequence[Named]) -> torch.Tensor:
    """The same for Breadcrumbs, which cuts at two places."""
    found = torch.zeros_like(base, dtype=torch.bool)
    for delta, own in zip(deltas, models, strict=True):
        size = delta.numel()
        kept, top = int(own["density"] * size), int(own["gamma"] * size)
        bottom = max(size - kept - top, 0)
        found |= cut(delta.abs(), size - bottom) | cut(delta.abs(), size - bottom - kept)
    return found


def varied(share: float) -> Split:
    """Where the selection of SCE could keep one or another of several entries of equal variance."""

    def found(base: torch.Tensor, deltas: Deltas, models: Sequence[Named]) -> torch.Tensor:
        variance = torch.stack(list(deltas)).double().var(0, unbiased=False)
        return cut(variance, max(int(int(variance.count_nonzero()) * share), 1))

    return found


def just_important(base: torch.Tensor, deltas: Deltas, models: Sequence[Named]) -> torch.Tensor:
    """Where the importance of Arcee Fusion is the threshold itself, but for rounding."""
    old, change = base.double(), deltas[0].double()
    p, q = (tensor.softmax(-1) + 1e-8 for tensor in (old + change, old))
    importance = change.abs() * (p * (p / q).log()).sum(-1, keepdim=True)
    ordered = importance.flatten().sort().values
    first, median, third = (ordered[(len(ordered) - 1) * quarter // 4] for quarter in (1, 2, 3))
    threshold = median + 1.5 * (third - first)
    return (importance - threshold).abs() <= 1e-9 * threshold


def weights(*values: float) -> tuple[Named, ...]:
    return tuple({"weight": value} for value in values)


def weighed(*pairs: tuple[float, float]) -> tuple[Named, ...]:
    return tuple({"weight": weight, "density": density} for weight, density in pairs)


def crumbs(*triples: tuple[float, float, float]) -> tuple[Named, ...]:
    return tuple({"weight": weight, "density": density, "gamma": gamma} for weight, density, gamma in triples)


def faded(*triples: tuple[float, float, float]) -> tuple[Named, ...]:
    return tuple({"weight": weight, "density": density, "epsilon": epsilon} for weight, density, epsilon in triples)


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
    Case("nuslerp", "nuslerp", weights(0.3, 0.9)),
    Case("nuslerp, of models", "nuslerp", weights(0.3, 0.9), base=False),
    Case(
        "nuslerp, row by row",
        "nuslerp",
        weights(0.3, 0.9),
        {"flatten": False},
        {"nuslerp_flatten": False},
    ),
    Case(
        "nuslerp, column by column",
        "nuslerp",
        weights(0.3, 0.9),
        {"flatten": False, "row_wise": True},
        {"nuslerp_flatten": False, "nuslerp_row_wise": True},
    ),
    Case("multislerp", "multislerp", weights(0.3, 0.9, 0.5)),
    Case("multislerp, of models", "multislerp", weights(0.3, 0.9, 0.5), base=False),
    Case(
        "multislerp, not normalized",
        "multislerp",
        weights(0.3, 0.9),
        {"normalize": False},
        {"normalize_weights": False},
    ),
    Case("karcher", "karcher", ({}, {}, {}), base=False),
    Case("karcher, a step", "karcher", ({}, {}, {}), {"max_iter": 1.0}, {"max_iter": 1}, base=False),
    Case("model stock", "model_stock", ({}, {}, {}), {"clamp": False}, {}),
    Case(
        "model stock, row by row",
        "model_stock",
        ({}, {}),
        {"clamp": False, "filter_wise": True},
        {"filter_wise": True},
        dtype="float64",
    ),
    Case("model stock, opposed", "model_stock", ({}, {}, {}), {"clamp": False}, {}, families=("opposed",)),
    Case("breadcrumbs", "breadcrumbs", crumbs((0.4, 0.6, 0.1), (-0.7, 0.85, 0.01)), split=without_tails),
    Case("breadcrumbs, no outliers", "breadcrumbs", crumbs((1.0, 0.6, 0.0)), split=without_tails),
    Case("breadcrumbs, more than there is", "breadcrumbs", crumbs((1.0, 0.97, 0.2)), split=without_tails),
    Case(
        "breadcrumbs ties",
        "breadcrumbs_ties",
        crumbs((0.4, 0.6, 0.1), (0.7, 0.85, 0.01), (1.0, 0.5, 0.05)),
        {"scale": 0.9},
        {"lambda": 0.9},
        split=without_tails,
    ),
    Case("sce", "sce", ({}, {}, {}), {"select_topk": 0.45}, split=varied(0.45)),
    Case("sce, all", "sce", ({}, {}), {"select_topk": 1.0}),
    Case("sce, all alike", "sce", ({}, {}, {}), {"select_topk": 1.0}, families=("alike",)),
    Case("ram", "ram", ({}, {}, {}), {"epsilon": 0.03}),
    Case(
        "ram plus",
        "ram_plus",
        ({}, {}, {}),
        {"epsilon": 0.03, "gain": 0.2, "limit": 0.7},
        {"epsilon": 0.03, "r": 0.2, "alpha": 0.7},
        their_method="ramplus_tl",
    ),
    Case("nearswap", "nearswap", ({},), {"t": 0.013}),
    Case("arcee fusion", "arcee_fusion", ({},), dtype="float64", split=just_important),
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
    Case(
        "della linear",
        "della_linear",
        faded((0.4, 0.6, 0.3), (-0.7, 0.3, 0.1)),
        {"rescale": "l1", "scale": 1.2},
        {"rescale": True, "lambda": 1.2},
        families=("large",),
    ),
    Case(
        "della",
        "della",
        faded((0.4, 0.6, 0.3), (0.7, 0.3, 0.2), (1.0, 0.8, 0.15)),
        {"rescale": "l1"},
        {"rescale": True},
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
OPPOSED = Case("model stock, clamped", "model_stock", ({}, {}), {}, {}, families=("opposed",))
CRUMB = Case("breadcrumbs, less than one entry", "breadcrumbs", crumbs((1.0, 0.01, 0.0)), families=("thin",))
SPHERE = Case("multislerp, of models alike", "multislerp", weights(1.0, 1.0, 1.0), base=False, families=("odd",))
ALIKE = Case("sce, of what is alike", "sce", ({}, {}), {"select_topk": 0.5}, families=("alike",))
CLOSE = Case("sce, of small changes", "sce", ({}, {}), {"select_topk": 1.0}, families=("close",))
DIFFERENT = (BELOW_ZERO, UNBIASED, IN_BF16, OPPOSED, CRUMB, SPHERE, ALIKE, CLOSE)
"""What mergekit does otherwise; test_mergekit.py says for each what."""

SLERP_BY_ROLE = """\
slices:
  - sources:
      - {model: BASE, layer_range: [0, 3]}
      - {model: ONE, layer_range: [0, 3]}
merge_method: slerp
base_model: BASE
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - {value: 0.5}
dtype: float32
out_dtype: bfloat16
"""
TIES_BY_DEFAULT = """\
models:
  - {model: BASE}
  - {model: ONE, parameters: {weight: [0.2, 0.9]}}
  - {model: TWO, parameters: {weight: [{filter: mlp, value: 0.4}, {value: 0.7}], density: 1.0}}
merge_method: ties
base_model: BASE
parameters: {normalize: true}
dtype: float32
out_dtype: bfloat16
"""
FRANKENSTEIN = """\
slices:
  - sources: [{model: ONE, layer_range: [0, 2]}]
  - sources: [{model: TWO, layer_range: [1, 3], parameters: {scale: [{filter: o_proj, value: 0.0}, {value: 1.0}]}}]
merge_method: passthrough
dtype: bfloat16
"""
SLICES_OF_SLICES = """\
slices:
  - sources:
      - {model: ONE, layer_range: [0, 2], parameters: {weight: 0.3}}
      - {model: TWO, layer_range: [1, 3], parameters: {weight: 0.5}}
  - sources:
      - {model: ONE, layer_range: [2, 3], parameters: {weight: 0.8}}
      - {model: TWO, layer_range: [0, 1], parameters: {weight: 0.1}}
merge_method: linear
dtype: float32
out_dtype: bfloat16
"""
WRITTEN = {
    "slerp-by-role": SLERP_BY_ROLE,
    "ties-by-default": TIES_BY_DEFAULT,
    "frankenstein": FRANKENSTEIN,
    "slices-of-slices": SLICES_OF_SLICES,
}
"""Files as people write them for mergekit, over the family `odd`."""
