"""Means of directions, columns and swaps against their float64 references, over tensors tied, zero, single or empty."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evomerge.strategies.merge.protocol import TensorContext
from evomerge.strategies.merge.registry import get
from tests.strategies.merge import reference_mixtures as reference
from tests.strategies.merge.reference import Array
from tests.strategies.merge.support import apply, array, parameters
from tests.strategies.merge.test_formulas import Example, examples


def agree(found: Tensor, expected: Array) -> None:
    assert found.dtype == torch.float64
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8, atol=1e-8)  # angles near 0 have half the digits


@given(example=examples(least=2), based=st.booleans(), along=st.sampled_from(["tensor", "row", "column"]))
def test_nuslerp(example: Example, based: bool, along: str) -> None:
    base = example.base if based else None
    merge = {"flatten": along == "tensor", "row_wise": along == "column"}
    found = apply("nuslerp", base, example.experts[:2], merge, weight=example.weights[:2])
    pair = example.arrays[1][:2]
    agree(found, reference.nuslerp(array(base) if base is not None else None, pair, example.weights[:2], along))


@given(example=examples(), based=st.booleans(), normalize=st.booleans())
def test_multislerp(example: Example, based: bool, normalize: bool) -> None:
    base, weights = example.base if based else None, tuple(map(abs, example.weights))
    found = apply("multislerp", base, example.experts, {"normalize": normalize}, weight=weights)
    origin = array(base) if base is not None else None
    expected, tangent = reference.multislerp_and_tangent(origin, example.arrays[1], weights, normalize)
    agree(found, expected)
    assert np.linalg.norm(tangent) < 1e-9


@given(example=examples())
def test_karcher(example: Example) -> None:
    agree(apply("karcher", None, example.experts), reference.karcher(example.arrays[1]))


@given(example=examples(least=2), filter_wise=st.booleans(), clamp=st.booleans())
def test_model_stock(example: Example, filter_wise: bool, clamp: bool) -> None:
    found = apply("model_stock", example.base, example.experts, {"filter_wise": filter_wise, "clamp": clamp})
    base, experts = example.arrays
    agree(found, reference.model_stock(base, experts, filter_wise=filter_wise, clamp=clamp))


@given(
    example=examples(), t=st.sampled_from([0.5, 1.0, 1.5]), s=st.sampled_from([0.5, 1.0, 1.5]), embedding=st.booleans()
)
def test_widen(example: Example, t: float, s: float, embedding: bool) -> None:
    name = "model.embed_tokens.weight" if embedding else "layers.0.mlp.weight"
    given_ = parameters("widen", len(example.experts), {"t": t, "s": s}, {})
    context = TensorContext(name, 0.0, 1, 0, example.names)
    found = get("widen").apply(context, example.base, example.experts, given_)
    base, experts = example.arrays
    agree(found, reference.widen(base, experts, t, s, embedding=embedding))


@given(example=examples(), t=st.sampled_from([0.0, 0.0625, 0.125, 0.3, 9.0]))
def test_nearswap(example: Example, t: float) -> None:
    base, experts = example.arrays
    agree(apply("nearswap", example.base, example.experts[:1], {"t": t}), reference.nearswap(base, experts[0], t))


@given(seed=st.integers(0, 1000), shape=st.sampled_from([(), (1,), (7,), (3, 5), (40, 3), (2, 3, 4)]))
def test_arcee_fusion(seed: int, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(seed)
    base, delta = (torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(2))
    expected = reference.arcee_fusion(array(base), array(base + delta))
    assert apply("arcee_fusion", base, [base + delta]).numpy().tolist() == expected.tolist()


FORMULAS: dict[str, tuple[int, Callable[[Array, list[Array]], Array]]] = {
    "nuslerp": (2, lambda base, experts: reference.nuslerp(base, experts, (1.0, 1.0))),
    "multislerp": (3, lambda base, experts: reference.multislerp_and_tangent(base, experts, (1.0,) * 3)[0]),
    "karcher": (3, lambda _, experts: reference.karcher(experts)),
    "model_stock": (3, reference.model_stock),
    "widen": (3, reference.widen),
    "nearswap": (1, lambda base, experts: reference.nearswap(base, experts[0], 1e-4)),
    "arcee_fusion": (1, lambda base, experts: reference.arcee_fusion(base, experts[0])),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_float32_with_defaults_is_the_reference_rounded(name: str) -> None:
    count, formula = FORMULAS[name]
    generator = torch.Generator().manual_seed(5)
    base = torch.randn(40, 50, generator=generator)
    experts = [base + 0.01 * torch.randn(40, 50, generator=generator) for _ in range(count)]
    found = apply(name, base, experts)
    assert found.dtype == torch.float32
    expected = formula(array(base), [array(expert) for expert in experts])
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=1e-6, atol=1e-6)
