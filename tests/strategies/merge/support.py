"""Calling a method in tests as a person would write it: the merge's parameters as a map, the inputs' by name."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from evomerge.recipe.tree import Input, Merge, Source
from evomerge.recipe.values import Scalar
from evomerge.strategies.merge.protocol import Parameters, Summary, TensorContext, Whole
from evomerge.strategies.merge.registry import get
from evomerge.strategies.merge.resolve import parameters_for
from tests.strategies.merge.reference import Array

TENSOR = "layers.0.weight"

BASE = (1.0, 1.0, 1.0, 1.0)
FIRST = (2.0, 0.8, 1.5, 1.0)
SECOND = (0.6, 1.6, 1.3, 1.1)
"""The cards' shared vectors: task vectors [1, -.2, .5, 0] and [-.4, .6, .3, .1]."""


def parameters(
    name: str, count: int, merge: Mapping[str, Scalar], each: Mapping[str, Sequence[float] | None]
) -> Parameters:
    """Return a method's parameters, what is not given at its default."""
    given = {key: values for key, values in each.items() if values is not None}
    inputs = tuple(
        Input(Source(f"expert-{index}"), {key: values[index] for key, values in given.items()})
        for index in range(count)
    )
    return parameters_for(Merge(name, inputs, params=merge), get(name), None, 0.0)


def apply(
    name: str,
    base: Tensor | None,
    inputs: Sequence[Tensor],
    merge: Mapping[str, Scalar] | None = None,
    *,
    seed: int = 0,
    fingerprints: Sequence[str] | None = None,
    weight: Sequence[float] | None = None,
    density: Sequence[float] | None = None,
    **each: Sequence[float] | None,
) -> Tensor:
    """Merge tensors, which are the whole model, by the method of that name."""
    prints = tuple(fingerprints or (f"expert-{index}" for index in range(len(inputs))))
    given = parameters(name, len(inputs), merge or {}, {"weight": weight, "density": density, **each})
    return apply_model(name, {TENSOR: (base, inputs)}, given, prints, seed)[TENSOR]


def apply_model(
    name: str,
    model: Mapping[str, tuple[Tensor | None, Sequence[Tensor]]],
    given: Parameters,
    fingerprints: Sequence[str],
    seed: int = 0,
) -> dict[str, Tensor]:
    """Merge the tensors of a whole model, the base's and the inputs' of each name, in that order."""
    method = get(name)
    contexts = {
        tensor: TensorContext(tensor, depth=0.0, layers=1, seed=seed, fingerprints=tuple(fingerprints))
        for tensor in model
    }
    for stage in method.stages(given) if method.stages else ():
        found = [stage(contexts[tensor], *tensors) for tensor, tensors in model.items()]
        sums: list[Summary | None] = [None]
        for summary in found:
            sums.append(summary if sums[-1] is None else sums[-1] + summary)
        total = sums[-1]
        assert total is not None
        for tensor, before in zip(model, sums, strict=False):
            whole = (*contexts[tensor].whole, Whole(total, partial(_same, before)))
            contexts[tensor] = replace(contexts[tensor], whole=whole)
    return {tensor: method.apply(contexts[tensor], *tensors, given) for tensor, tensors in model.items()}


def _same(summary: Summary | None) -> Summary | None:
    return summary


def tensor(values: object) -> Tensor:
    """Return a float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)


def array(values: Tensor) -> Array:
    """Return a tensor as a float64 array."""
    return values.detach().double().numpy().astype(np.float64)
