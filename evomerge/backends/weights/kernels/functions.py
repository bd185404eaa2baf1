"""The exponential function and the hyperbolic tangent in float32, within a few units in the last place.

Written out, so that a loop that calls them works on many elements at once.
"""

from typing import Any

import numpy as np

from evomerge.backends.weights.kernels.jit import inlined
from evomerge.backends.weights.kernels.numbers import bits_of, float_of

_ONE = np.float32(1)
_LEAST = np.float32(-87)  # the exponential of less is hardly a number of full precision any more
_PER_LOG2 = np.float32(1 / np.log(2))
_LOG2 = np.float32(0.693359375)  # few bits, so that its products are exact
_LOG2_REST = np.float32(np.log(2) - 0.693359375)
_TO_INTEGER = np.float32(1.5 * 2**23)  # a number plus this is rounded to an integer, which stands in its last bits
_EXP = tuple(np.float32(1 / factor) for factor in (1, 1, 2, 6, 24, 120, 720, 5040))
_TANH = tuple(np.float32(value) for value in (1, -1 / 3, 2 / 15, -17 / 315, 62 / 2835))
_SMALL = np.float32(0.25)


@inlined
def exp(number: Any) -> Any:
    """Return the exponential of a number, of at least -87: 2^n times a series in what is left of it."""
    number = number if number > _LEAST else _LEAST
    shifted = number * _PER_LOG2 + _TO_INTEGER
    whole = shifted - _TO_INTEGER
    rest = number - whole * _LOG2 - whole * _LOG2_REST
    series = _EXP[7] * rest + _EXP[6]
    series = series * rest + _EXP[5]
    series = series * rest + _EXP[4]
    series = series * rest + _EXP[3]
    series = series * rest + _EXP[2]
    series = series * rest + _EXP[1]
    series = series * rest + _EXP[0]
    return series * float_of(np.uint32((bits_of(shifted) << np.uint32(23)) + np.uint32(0x3F800000)))


@inlined
def tanh(number: Any) -> Any:
    """Return the hyperbolic tangent: by its series where it is small, elsewhere by an exponential."""
    size = abs(number)
    square = size * size
    series = _TANH[4] * square + _TANH[3]
    series = series * square + _TANH[2]
    series = series * square + _TANH[1]
    series = (series * square + _TANH[0]) * size
    power = exp(-(size + size))
    found = series if size < _SMALL else (_ONE - power) / (_ONE + power)
    return -found if number < np.float32(0) else found
