"""What holds for means of directions, layers by depth and swaps, whatever the numbers; who is exempt is not listed."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evomerge.strategies.merge.registry import get
from tests.strategies.merge.support import apply
from tests.strategies.merge.test_formulas import Example, examples

COUNTS = {
    "nuslerp": 2,
    "multislerp": 3,
    "karcher": 3,
    "model_stock": 3,
    "widen": 3,
    "lines": 1,
    "layer_swap": 2,
    "nearswap": 1,
    "arcee_fusion": 1,
}
"""The methods here, and with how many models they are tried."""

AROUND_A_BASE = [name for name in COUNTS if name not in ("karcher", "layer_swap")]
SHAPES = [(), (0,), (1,), (5,), (0, 3), (3, 0), (1, 1), (2, 3), (2, 3, 2)]
every = pytest.mark.parametrize("name", COUNTS)


def tensors(count: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(8)
    return [torch.randn(shape, dtype=dtype, generator=generator) for _ in range(count)]


def merged(name: str, base: Tensor | None, experts: Sequence[Tensor]) -> Tensor:
    return apply(name, None if get(name).needs.base == "unused" else base, experts)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-7) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["multislerp", "karcher", "widen"])
@given(example=examples())
def test_one_model_alone_is_itself(name: str, example: Example) -> None:
    close(merged(name, example.base, example.experts[:1]), example.experts[0])


@given(example=examples())
def test_lines_without_a_scale_is_its_model(example: Example) -> None:
    close(apply("lines", example.base, example.experts[:1], {"alpha": 1.0, "beta": 0.0}), example.experts[0])


@pytest.mark.parametrize("name", ["nuslerp", "multislerp", "karcher", "model_stock", "layer_swap"])
@given(example=examples())
def test_averaging_equal_models_gives_that_model(name: str, example: Example) -> None:
    experts = [example.experts[0].clone() for _ in range(COUNTS[name])]
    close(merged(name, example.base, experts), example.experts[0])


@pytest.mark.parametrize("name", ["multislerp", "karcher", "model_stock", "widen"])
@given(example=examples(least=2), data=st.data())
def test_order_of_models_changes_nothing(name: str, example: Example, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(example.experts))))
    base = None if get(name).needs.base == "unused" else example.base
    weights = tuple(map(abs, example.weights))

    def found(order: Sequence[int]) -> Tensor:
        return apply(
            name,
            base,
            [example.experts[index] for index in order],
            fingerprints=[example.names[index] for index in order],
            weight=[weights[index] for index in order] if name == "multislerp" else None,
        )

    close(found(order), found(range(len(order))))


@given(example=examples(least=2))
def test_nuslerp_with_its_weights_turned_around_is_the_same(example: Example) -> None:
    pair, weights = example.experts[:2], example.weights[:2]
    one = apply("nuslerp", example.base, pair, weight=weights)
    close(apply("nuslerp", example.base, pair[::-1], weight=weights[::-1]), one)


@pytest.mark.parametrize("name", AROUND_A_BASE)
@given(example=examples())
def test_experts_without_differences_give_exactly_the_base(name: str, example: Example) -> None:
    assert merged(name, example.base, [example.base.clone() for _ in range(COUNTS[name])]).equal(example.base)


@pytest.mark.parametrize("name", ["nuslerp", "multislerp", "karcher", "model_stock", "lines", "layer_swap"])
@given(example=examples(least=3), factor=st.sampled_from([2.0**-20, 0.5, 2.0, 2.0**20]))
def test_task_vectors_scaled_together_scale_the_result(name: str, example: Example, factor: float) -> None:
    zero, experts = torch.zeros_like(example.base), example.experts[: COUNTS[name]]
    scaled = merged(name, zero, [expert * factor for expert in experts])
    close(scaled / factor, merged(name, zero, experts))


@every
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape_keeps_its_shape_and_is_finite(name: str, shape: tuple[int, ...]) -> None:
    base, *experts = tensors(COUNTS[name] + 1, shape)
    found = merged(name, base, experts)
    assert found.shape == shape
    assert found.isfinite().all()


@every
@pytest.mark.parametrize("shape", [(1,), (5,), (3, 4)], ids=str)
@pytest.mark.parametrize("size", [1e-45, 1e-42, 1e-38, 1e-20, 1e20, 1e37])
def test_denormal_and_huge_numbers_stay_finite(name: str, shape: tuple[int, ...], size: float) -> None:
    base, *experts = tensors(COUNTS[name] + 1, shape)
    assert merged(name, base * size, [expert * size for expert in experts]).isfinite().all()
    mixed = [experts[0] * size, *experts[1:]]
    assert merged(name, base, mixed).isfinite().all()
    assert merged(name, torch.zeros_like(base), mixed).isfinite().all()


@every
@pytest.mark.parametrize("zeros", [1, 2, 3])
def test_some_zero_tensors_stay_finite(name: str, zeros: int) -> None:
    base, *experts = tensors(COUNTS[name] + 1, (3, 4))
    experts = [*(torch.zeros_like(base) for _ in range(zeros)), *experts[zeros:]][: COUNTS[name]]
    assert merged(name, base, experts).isfinite().all()
    assert merged(name, torch.zeros_like(base), experts).isfinite().all()


@pytest.mark.parametrize("name", [name for name in COUNTS if get(name).needs.inputs[1] is None])
def test_twenty_models_merge(name: str) -> None:
    base, *experts = tensors(21, (3, 4))
    found = merged(name, base, experts)
    assert found.isfinite().all()
    assert float(found.norm()) < 10 * max(float(expert.norm()) for expert in experts)


@pytest.mark.parametrize("name", ["nuslerp", "multislerp", "karcher", "model_stock"])
@given(seed=st.integers(0, 10_000), factor=st.floats(0.1, 10))
def test_opposed_task_vectors_stay_between_the_models(name: str, seed: int, factor: float) -> None:
    tau = torch.randn(200, generator=torch.Generator().manual_seed(seed))
    found = merged(name, torch.zeros_like(tau), [tau, -factor * tau])
    assert bool((found.abs() <= tau.abs() * max(1, factor) * (1 + 1e-5)).all())


@every
def test_transposed_tensors_merge_as_their_copies_do(name: str) -> None:
    base, *experts = (tensor.t() for tensor in tensors(COUNTS[name] + 1, (6, 9)))
    copied = merged(name, base.contiguous(), [expert.contiguous() for expert in experts])
    assert merged(name, base, experts).equal(copied)


@every
def test_threads_change_nothing(name: str) -> None:
    base, *experts = tensors(COUNTS[name] + 1, (700, 300))
    before = torch.get_num_threads()
    try:
        results: list[Tensor] = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(merged(name, base, experts))
    finally:
        torch.set_num_threads(before)
    assert results[0].equal(results[1])
