"""Methods that look at the whole model before they merge a tensor of it."""

from collections.abc import Sequence

import numpy as np
import pytest
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


@pytest.mark.parametrize("models", [1, 2, 3])
@given(data=st.data(), densities=st.tuples(*[st.sampled_from([0.0, 0.05, 0.3, 0.5, 1.0])] * 3))
def test_pcb_is_the_reference(models: int, data: st.DataObject, densities: tuple[float, ...]) -> None:
    base, *experts = data.draw(whole_models(models + 1))
    weights, densities = (1.0, 0.8, 1.3)[:models], densities[:models]
    found = merged("pcb", base, experts, {"scale": 1.5}, density=densities, weight=weights)
    arrays = [[array(part) for part in model] for model in (base, *experts)]
    expected = reference_sparse.pcb(arrays[0], arrays[1:], weights, densities, 1.5)
    for own, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(own.numpy(), reference, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("scope", ["model", "tensor"])
def test_pcb_keeps_what_wins_its_competitions(scope: str) -> None:
    experts = [tensor([1.0, -0.2, 0.5, 0.1]), tensor([-0.4, 0.6, 0.3, 0.2])]
    base = torch.zeros(4, dtype=torch.float64)
    found = apply("pcb", base, experts, {"scale": 1.0, "scope": scope}, density=(0.5, 0.5))
    torch.testing.assert_close(found, tensor([1.0, 0.6, 0.0, 0.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scope", ["model", "tensor"])
@pytest.mark.parametrize("models", [1, 2, 20])
def test_pcb_of_constant_task_vectors_is_the_base(scope: str, models: int) -> None:
    base = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    experts = [torch.zeros_like(base) + 0.5 + base for _ in range(models)]
    assert (
        apply("pcb", torch.zeros_like(base), [torch.full_like(base, 0.5)] * models, {"scope": scope}).count_nonzero()
        == 0
    )
    assert apply("pcb", base, [base.clone() for _ in experts], {"scope": scope}).equal(base)


def test_pcb_of_one_tensor_is_the_same_in_both_scopes_and_of_two_it_is_not() -> None:
    parts = torch.randn(3, 2, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    parts[:, 1] *= 5
    base, *experts = [list(part) for part in parts]
    single = [
        merged("pcb", base[:1], [expert[:1] for expert in experts], {"scope": scope}) for scope in ("model", "tensor")
    ]
    assert single[0][0].equal(single[1][0])
    both = [merged("pcb", base, experts, {"scope": scope}) for scope in ("model", "tensor")]
    assert not both[0][0].equal(both[1][0])
    assert both[1][0].equal(single[1][0])


def test_pcb_keeps_the_share_of_the_model_and_finds_limits_within_a_4096th() -> None:
    generator = torch.Generator().manual_seed(1)
    base = [torch.zeros(200, 300, dtype=torch.float64), torch.zeros(40_000, dtype=torch.float64)]
    expert = [0.01 * torch.randn(part.shape, dtype=torch.float64, generator=generator) for part in base]
    found = torch.cat([part.flatten() for part in merged("pcb", base, [expert], {"scale": 1.0}, density=(0.1,))])
    flat = torch.cat([part.flatten() for part in expert])
    assert int(found.count_nonzero()) == pytest.approx(10_000, rel=0.01)
    ordered = flat.abs().sort().values
    assert float(found.abs().max()) == pytest.approx(float(ordered[-11]), rel=1 / 4096)
    assert float(found[found != 0].abs().min()) == pytest.approx(float(ordered[90_000]), rel=1e-3)


def test_pcb_of_many_models_and_of_huge_and_tiny_numbers_stays_finite() -> None:
    generator = torch.Generator().manual_seed(1)
    for size in (1e-40, 1e-20, 1e3, 1e30):
        base, *experts = torch.randn(21, 50, generator=generator) * size
        for scope in ("model", "tensor"):
            assert bool(apply("pcb", base, experts, {"scope": scope}).isfinite().all())
    assert bool(apply("pcb", base, experts * 5).isfinite().all())
