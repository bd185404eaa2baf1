"""Every method against its float64 reference, also over tensors that are tied, zero, single or empty."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evomerge.recipe.values import Scalar
from tests.strategies.merge import reference
from tests.strategies.merge.reference import Array
from tests.strategies.merge.support import TENSOR, apply, array


@dataclass(frozen=True)
class Example:
    """A merge of values that are multiples of 1/8 and weights of 1/4: sums are exact, and ties are ties."""

    base: Tensor
    experts: tuple[Tensor, ...]
    weights: tuple[float, ...]
    densities: tuple[float, ...]
    scale: float
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"expert-{index}" for index in range(len(self.experts)))

    @property
    def arrays(self) -> tuple[Array, list[Array]]:
        return array(self.base), [array(expert) for expert in self.experts]


@st.composite
def examples(draw: st.DrawFn, least: int = 1) -> Example:
    shape = draw(st.sampled_from([(), (0,), (1,), (6,), (3, 5), (2, 3, 2)]))
    count = draw(st.integers(least, 4))
    size = int(np.prod(shape))
    eighths = st.lists(st.integers(-16, 16), min_size=size, max_size=size)
    tensors = [torch.tensor(draw(eighths), dtype=torch.float64).div_(8).reshape(shape) for _ in range(count + 1)]
    each = st.integers(-4, 6).filter(bool)
    return Example(
        base=tensors[0],
        experts=tuple(tensors[1:]),
        weights=tuple(
            draw(st.lists(each, min_size=count, max_size=count).map(lambda quarters: [q / 4 for q in quarters]))
        ),
        densities=tuple(draw(st.lists(st.sampled_from([0.05, 0.2, 0.5, 0.7, 1.0]), min_size=count, max_size=count))),
        scale=draw(st.sampled_from([0.25, 0.5, 1.0, 1.5])),
        seed=draw(st.integers(0, 1000)),
    )


def agree(found: Tensor, expected: Array) -> None:
    assert found.dtype == torch.float64
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-11, atol=1e-11)


@given(example=examples(), normalize=st.booleans())
def test_linear(example: Example, normalize: bool) -> None:
    weights = tuple(map(abs, example.weights))
    found = apply("linear", None, example.experts, {"normalize": normalize}, weight=weights)
    agree(found, reference.linear(example.arrays[1], weights, normalize))


@given(example=examples())
def test_task_arithmetic(example: Example) -> None:
    base, experts = example.arrays
    found = apply("task_arithmetic", example.base, example.experts, {"scale": example.scale}, weight=example.weights)
    agree(found, reference.task_arithmetic(base, experts, example.weights, example.scale))


@given(example=examples(), t=st.floats(0, 1))
def test_slerp(example: Example, t: float) -> None:
    base, experts = example.arrays
    expected = reference.slerp(base, experts[0], t)
    agree(apply("slerp", example.base, example.experts[:1], {"t": t}), expected)
    agree(apply("slerp", None, [example.base, example.experts[0]], {"t": t}), expected)


@given(example=examples(), merge_func=st.sampled_from(["mean", "sum", "max"]))
def test_ties(example: Example, merge_func: str) -> None:
    base, experts = example.arrays
    found = apply(
        "ties",
        example.base,
        example.experts,
        {"scale": example.scale, "merge_func": merge_func},
        weight=example.weights,
        density=example.densities,
    )
    expected = reference.ties(
        base, experts, example.weights, example.densities, scale=example.scale, merge_func=merge_func
    )
    agree(found, expected)


@given(example=examples(), rescale=st.sampled_from(["unbiased", "l1"]))
def test_dare_linear(example: Example, rescale: str) -> None:
    base, experts = example.arrays
    found = apply(
        "dare_linear",
        example.base,
        example.experts,
        {"scale": example.scale, "rescale": rescale},
        seed=example.seed,
        weight=example.weights,
        density=example.densities,
    )
    expected = reference.dare(
        base,
        experts,
        example.weights,
        example.densities,
        seed=example.seed,
        tensor=TENSOR,
        fingerprints=example.names,
        scale=example.scale,
        rescale=rescale,
    )
    agree(found, expected)


@given(example=examples(), merge_func=st.sampled_from(["mean", "sum", "max"]))
def test_dare_ties(example: Example, merge_func: str) -> None:
    densities = tuple(0.5 if density < 1 else 1.0 for density in example.densities)  # rescaled entries stay exact
    base, experts = example.arrays
    found = apply(
        "dare_ties",
        example.base,
        example.experts,
        {"scale": example.scale, "merge_func": merge_func},
        seed=example.seed,
        weight=example.weights,
        density=densities,
    )
    expected = reference.dare(
        base,
        experts,
        example.weights,
        densities,
        seed=example.seed,
        tensor=TENSOR,
        fingerprints=example.names,
        scale=example.scale,
        merge_func=merge_func,
    )
    agree(found, expected)


FORMULAS: dict[str, Callable[[Array, list[Array]], Array]] = {
    "linear": lambda _, experts: reference.linear(experts, (1.0,) * 3),
    "task_arithmetic": lambda base, experts: reference.task_arithmetic(base, experts, (1.0,) * 3),
    "ties": lambda base, experts: reference.ties(base, experts, (1.0,) * 3, (0.2,) * 3),
    "dare_linear": lambda base, experts: reference.dare(
        base, experts, (1.0,) * 3, (0.7,) * 3, seed=0, tensor=TENSOR, fingerprints=("a", "b", "c")
    ),
    "dare_ties": lambda base, experts: reference.dare(
        base, experts, (1.0,) * 3, (0.7,) * 3, seed=0, tensor=TENSOR, fingerprints=("a", "b", "c"), merge_func="sum"
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_float32_with_defaults_is_the_reference_rounded(name: str) -> None:
    generator = torch.Generator().manual_seed(5)
    base = torch.randn(40, 50, generator=generator)
    experts = [base + 0.01 * torch.randn(40, 50, generator=generator) for _ in range(3)]
    merge: dict[str, Scalar] = {}
    found = apply(name, base, experts, merge, fingerprints=("a", "b", "c"))
    assert found.dtype == torch.float32
    expected = FORMULAS[name](array(base), [array(expert) for expert in experts])
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=1e-6, atol=1e-6)
