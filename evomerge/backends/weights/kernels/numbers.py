"""Storage dtypes inside kernels: elements are read as float32, and rounded to nearest even when they are written.

numpy has no bfloat16 and computes slowly in float16, so their bits travel as integers: bfloat16 as uint16, float16 as
int16; float32 is itself. The conversions agree with torch's bit for bit, but for the payload of what is no number.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from evomerge.backends.weights.kernels.jit import inlined, overload

Elements = NDArray[Any]
"""Elements of a tensor, flat: uint16 (the bits of bfloat16), int16 (of float16), or float32."""


def _intrinsic(function: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """Return what the compiler makes of a function that, given a type, returns how code for it is generated."""
    return cast("Callable[[Any], Any]", intrinsic(function))


@_intrinsic
def _float_of(_context: Any, _bits: Any) -> Any:
    """Return the float32 with those bits."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), generate


@_intrinsic
def _bits_of(_context: Any, _number: Any) -> Any:
    """Return the bits of a float32."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), generate


@inlined
def bits_of(number: np.float32) -> np.uint32:
    """Return the bits of a float32."""
    return _bits_of(number)


@inlined
def float_of(bits: np.uint32) -> np.float32:
    """Return the float32 that has these bits."""
    return _float_of(bits)


@inlined
def bin_of(number: np.float32) -> np.uint32:
    """Return the bits of a float32's magnitude as bfloat16, rounded to nearest even."""
    bits = bits_of(number) & np.uint32(0x7FFFFFFF)
    return (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)


def load(source: Elements, index: int) -> np.float32:
    """Return an element as float32."""
    raise NotImplementedError


@overload(load)
def _load(source: Any, index: Any) -> Any:
    def bfloat16(source: Any, index: Any) -> Any:
        return _float_of(np.uint32(source[index]) << np.uint32(16))

    def float16(source: Any, index: Any) -> Any:
        half = np.uint32(np.uint16(source[index]))
        sign = (half & np.uint32(0x8000)) << np.uint32(16)
        rest = (half & np.uint32(0x7FFF)) << np.uint32(13)
        # the exponent's bias changes from 15 to 127; multiplying does that for the smallest numbers as well
        number = _float_of(rest) * np.float32(2.0**112)
        special = _bits_of(number) | np.uint32(0x7F800000) if rest >= np.uint32(0x0F800000) else _bits_of(number)
        return _float_of(special | sign)

    def float32(source: Any, index: Any) -> Any:
        return source[index]

    return {types.uint16: bfloat16, types.int16: float16, types.float32: float32}.get(source.dtype)


@inlined
def delta(source: Any, index: Any, origin: Any) -> Any:
    """Return an element's difference to the base's, which is `origin`."""
    return load(source, index) - origin


def store(target: Elements, index: int, number: np.float32) -> None:
    """Write a float32, rounded to nearest even."""
    raise NotImplementedError


@overload(store)
def _store(target: Any, index: Any, number: Any) -> Any:
    def bfloat16(target: Any, index: Any, number: Any) -> Any:
        bits = _bits_of(number)
        rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        target[index] = np.uint16(rounded) if number == number else np.uint16(0x7FC0)  # noqa: PLR0124  # NaN

    def float16(target: Any, index: Any, number: Any) -> Any:
        bits = _bits_of(number)
        sign = (bits >> np.uint32(16)) & np.uint32(0x8000)
        size = bits & np.uint32(0x7FFFFFFF)
        # below 2^-14 the unit is 2^-24: adding 0.5, of which that is the last bit, rounds to it
        small = _bits_of(_float_of(size) + np.float32(0.5)) - np.uint32(0x3F000000)
        normal = (
            size - np.uint32(0x38000000) + np.uint32(0xFFF) + ((size >> np.uint32(13)) & np.uint32(1))
        ) >> np.uint32(13)
        half = small if size < np.uint32(0x38800000) else normal
        half = np.uint32(0x7C00) if size >= np.uint32(0x477FF000) else half
        half = np.uint32(0x7E00) if size > np.uint32(0x7F800000) else half
        target[index] = np.int16(half | sign)

    def float32(target: Any, index: Any, number: Any) -> Any:
        target[index] = number

    return {types.uint16: bfloat16, types.int16: float16, types.float32: float32}.get(target.dtype)
