"""What becomes of the weighted task vectors' entries at one place: their sum, or a vote on the sign and what agrees."""

from collections.abc import Callable
from typing import Any

import numpy as np

from evomerge.backends.weights.kernels.jit import inlined
from evomerge.backends.weights.kernels.tuples import each, each_with, total
from evomerge.backends.weights.kernels.tuples import largest as largest_of

Combine = Callable[[tuple[np.float32, ...], Any], np.float32]
"""Returns one entry for those of all models and what else it is told, here their weights."""

_ZERO = np.float32(0)
_ONE = np.float32(1)


@inlined
def summed(values: Any, _weights: Any) -> Any:
    """Return the sum."""
    return total(values)


@inlined
def agreeing_mean(values: Any, weights: Any) -> Any:
    """Return the sum of the values that have the elected sign, over the sum of their weights' magnitudes."""
    positive = total(values) >= _ZERO
    agreeing = each_with(signed, values, positive)
    mass = total(each(mass_of, agreeing, weights))
    mean = total(agreeing) / (mass if mass > _ZERO else _ONE)
    return mean if positive else -mean


@inlined
def agreeing_sum(values: Any, _weights: Any) -> Any:
    """Return the sum of the values that have the elected sign."""
    positive = total(values) >= _ZERO
    result = total(each_with(signed, values, positive))
    return result if positive else -result


@inlined
def agreeing_max(values: Any, _weights: Any) -> Any:
    """Return the largest of the values that have the elected sign."""
    positive = total(values) >= _ZERO
    result = largest_of(each_with(signed, values, positive))
    return result if positive else -result


@inlined
def signed(value: Any, positive: Any) -> Any:
    """Return the magnitude of a value of the elected sign, and zero for others."""
    value = value if positive else -value
    return value if value > _ZERO else _ZERO


@inlined
def mass_of(value: Any, weight: Any) -> Any:
    """Return the magnitude of a value's weight, where there is a value."""
    return abs(weight) if value > _ZERO else _ZERO
