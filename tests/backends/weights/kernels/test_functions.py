"""The functions of kernels agree with numpy's in float64, within a few units in the last place of float32."""

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.backends.weights.kernels.functions import exp, tanh
from evomerge.backends.weights.kernels.jit import compiled

Numbers = NDArray[np.float32]


@compiled
def exp_of(numbers: Numbers, out: Numbers) -> None:
    for k in range(numbers.size):
        out[k] = exp(numbers[k])


@compiled
def tanh_of(numbers: Numbers, out: Numbers) -> None:
    for k in range(numbers.size):
        out[k] = tanh(numbers[k])


def test_the_exponential() -> None:
    numbers = np.linspace(-86, 80, 100_003, dtype=np.float32)
    out = np.empty_like(numbers)
    exp_of(numbers, out)
    np.testing.assert_allclose(out, np.exp(numbers.astype(np.float64)), rtol=4e-7)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_hyperbolic_tangent_of_small_and_of_large_numbers(sign: int) -> None:
    sizes = np.concatenate([np.logspace(-37, 2, 50_001), np.linspace(0, 20, 50_001)])
    numbers = np.append(sizes, np.inf).astype(np.float32) * np.float32(sign)
    out = np.empty_like(numbers)
    tanh_of(numbers, out)
    np.testing.assert_allclose(out, np.tanh(numbers.astype(np.float64)), rtol=4e-7)
