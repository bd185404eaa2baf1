"""Methods that look at the whole model before they merge a tensor of it."""

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.strategies.merge import reference_sparse
from tests.strategies.merge.support import apply, apply_model, array, parameters, tensor

SHAPES = ((2, 3), (0,), (4,), (), (3, 1, 2))
Model = list[Tensor]


def merged(
    name: str,
    base: Model,
    models: Sequence[Model],
    merge: dict[str, float | int | str | bool],
    **each: Sequence[float],
) -> list[Tensor]:
    count = len(models)
    found = apply_model(
        name,
        {f"tensor.{index}": (base[index], [model[index] for model in models]) for index in range(len(base))},
        parameters(name, count, merge, each),
        [f"expert-{index}" for index in range(count)],
    )
    return list(found.values())


@st.composite
def whole_models(draw: st.DrawFn, models: int) -> list[Model]:
    """Return models of several tensors whose values are multiples of 1/8, so that many magnitudes are equal."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    return [
        [torch.randint(-9, 10, shape, generator=generator).double().div_(8) for shape in SHAPES] for _ in range(models)
    ]


@given(models=whole_models(4), densities=st.tuples(*[st.sampled_from([0.05, 0.2, 0.5, 0.9, 1.0])] * 3))
def test_ties_trims_the_whole_model(models: list[Model], densities: tuple[float, ...]) -> None:
    base, *experts = models
    weights = (1.0, 0.5, 0.25)
    found = merged("ties", base, experts, {"scope": "model"}, density=densities, weight=weights)
    arrays = [[array(part) for part in model] for model in models]
    expected = reference_sparse.ties_of_models(arrays[0], arrays[1:], weights, densities)
    for own, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(own.numpy(), reference, rtol=1e-12, atol=1e-12)


@given(models=whole_models(2), density=st.floats(0.001, 1))
def test_ties_keeps_exactly_the_share_of_the_model(models: list[Model], density: float) -> None:
    base = [torch.zeros_like(part) for part in models[0]]
    expert = [part.abs() + 1 for part in models[1]]
    found = merged("ties", base, [expert], {"scope": "model"}, density=(density,))
    size = sum(part.numel() for part in expert)
    assert sum(int(part.count_nonzero()) for part in found) == max(1, int(size * density))


def test_ties_of_the_model_may_leave_a_tensor_as_it_was() -> None:
    base, large, small = torch.zeros(4, dtype=torch.float64), tensor([4.0, 5.0, 6.0, 7.0]), tensor([1.0, 2.0, 1.0, 1.5])
    found = merged("ties", [base, base], [[large, small]], {"scope": "model"}, density=(0.5,))
    assert found[0].equal(large)
    assert found[1].equal(base)
    assert merged("ties", [base, base], [[large, small]], {}, density=(0.5,))[1].tolist() == [0.0, 2.0, 0.0, 1.5]


def test_ties_of_a_model_of_one_tensor_is_that_of_the_tensor() -> None:
    rows = torch.randn(4, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    own = apply("ties", rows[0], list(rows[1:]), {"scope": "tensor"})
    assert apply("ties", rows[0], list(rows[1:]), {"scope": "model"}).equal(own)
