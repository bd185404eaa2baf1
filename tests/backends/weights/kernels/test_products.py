"""Inner products from the kernels are those that mixtures are defined by."""

import numpy as np
import pytest
import torch

from evomerge.backends.weights.kernels import products as module
from evomerge.backends.weights.kernels.products import products
from evomerge.backends.weights.kernels.work import Sources, Work
from evomerge.backends.weights.raw import Raw
from evomerge.backends.weights.statistics import Statistics
from evomerge.strategies.merge import mixtures
from evomerge.strategies.merge.protocol import Along, Parameters, TensorContext
from evomerge.strategies.merge.registry import get


@pytest.mark.parametrize("along", ["tensor", "row", "column"])
@pytest.mark.parametrize("name", ["karcher", "model_stock"])  # of models without a base, and of deltas with one
@pytest.mark.parametrize("threads", [1, 3])
def test_products_are_those_of_the_definition(
    name: str, along: Along, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PIECE", 100)
    method = get(name)
    assert method.mixture is not None
    based = method.needs.base == "required"
    generator = torch.Generator().manual_seed(5)
    for shape in ((7,), (1, 9), (33, 65), (4, 3, 5)):
        tensors = [torch.randn(shape, generator=generator).bfloat16() for _ in range(4)]
        base, inputs = (tensors[0], tensors[1:]) if based else (None, tensors[1:])
        statistics = Statistics(threads=threads)
        context = TensorContext("w", 0.5, 1, 0, ("a", "b", "c"), shape=shape)
        raws = tuple(map(Raw.of, inputs))
        origin = None if base is None else Raw.of(base)
        sources = Sources(context, origin, raws, statistics.threads, lambda *_: None, statistics.scratch.room)  # pyright: ignore[reportArgumentType]  # nothing is kept here
        columns = tensors[0][0].numel() if len(shape) > 1 else tensors[0].numel()
        work = Work(sources, method, Parameters({}, ({},) * 3), columns, Raw.empty("F32", shape).elements)
        found = products(work, method.mixture, along)
        summed = mixtures.vectors(method.mixture, None if base is None else base.float(), [t.float() for t in inputs])
        np.testing.assert_allclose(found, mixtures.products(summed, along), rtol=1e-12, atol=1e-12)
