"""What becomes of the weighted task vectors' entries at one place: their sum, or a vote on the sign and what agrees."""

from collections.abc import Callable
from typing import Any

import numpy as np

from evomerge.backends.weights.kernels.jit import inlined
from evomerge.backends.weights.kernels.numbers import bits_of, float_of
from evomerge.backends.weights.kernels.tuples import each, each_with, total
from evomerge.backends.weights.kernels.tuples import largest as largest_of

Combine = Callable[[tuple[np.float32, ...], Any], np.float32]
"""Returns one entry for those of all models and what else it is told, here their weights."""

_ZERO = np.float32(0)
_LEAST = np.finfo(np.float32).tiny
_SIGN = np.uint32(0x80000000)


@inlined
def summed(values: Any, _weights: Any) -> Any:
    """Return the sum."""
    return total(values)


@inlined
def agreeing_mean(values: Any, weights: Any) -> Any:
    """Return the sum of the values that have the elected sign, over the sum of their weights' magnitudes."""
    agree = each_with(agrees, values, flip_of(values))
    mass = total(each(where, agree, each(abs, weights)))
    return total(each(where, agree, values)) / (mass if mass > _LEAST else _LEAST)


@inlined
def agreeing_sum(values: Any, _weights: Any) -> Any:
    """Return the sum of the values that have the elected sign."""
    return total(each(where, each_with(agrees, values, flip_of(values)), values))


@inlined
def agreeing_max(values: Any, _weights: Any) -> Any:
    """Return the largest of the values that have the elected sign."""
    flip = flip_of(values)
    most = largest_of(each_with(_flipped, values, flip))
    return _flipped(most if most > _ZERO else _ZERO, flip)


@inlined
def flip_of(values: Any) -> Any:
    """Return the bit of the sign where the elected one, the sum's, is minus. A sum of zero elects plus."""
    return np.uint32(0) if total(values) >= _ZERO else _SIGN


@inlined
def agrees(value: Any, flip: Any) -> Any:
    """Return whether a value has the elected sign, which zeros have not."""
    return _flipped(value, flip) > _ZERO


@inlined
def where(condition: Any, value: Any) -> Any:
    """Return a value where a condition holds, and zero elsewhere."""
    return value if condition else _ZERO


@inlined
def _flipped(value: Any, flip: Any) -> Any:
    return float_of(np.uint32(bits_of(value) ^ flip))
