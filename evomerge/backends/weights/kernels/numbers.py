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


def _intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what the compiler makes of a function that, given types, returns how code for them is generated."""
    return cast("Callable[..., Any]", intrinsic(function))


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


@_intrinsic
def _word_at(_context: Any, source: Any, _pair: Any) -> Any:
    """Return two elements of 16 bits as one number, the first in its lower half."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_address(context, builder, signature, arguments), align=2)

    return types.uint32(source, types.intp), generate


@_intrinsic
def _set_word_at(_context: Any, target: Any, _pair: Any, _word: Any) -> Any:
    """Write two elements of 16 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _address(context, builder, signature, arguments), align=2)
        return context.get_dummy_value()

    return types.none(target, types.intp, types.uint32), generate


def _address(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Return where a pair of an array's elements of 16 bits begins: the first two are the pair 0."""
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    words = builder.bitcast(data, context.get_value_type(types.uint32).as_pointer())
    return builder.gep(words, [arguments[1]])


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


@inlined
def size_of(number: np.float32) -> np.uint32:
    """Return a float32's bits without the sign: in the order of magnitudes, what is no number beyond infinity."""
    return np.uint32(bits_of(number) & np.uint32(0x7FFFFFFF))


@inlined
def max_size(most: np.uint32, number: np.float32) -> np.uint32:
    """Return the larger of `most` and a number's `size_of`."""
    size = size_of(number)
    return size if size > most else most


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


def load_pair(source: Elements, pair: int) -> tuple[np.float32, np.float32]:
    """Return two elements that stand side by side: the first two are the pair 0.

    Loops over pairs of 16 bits are twice as fast as those over elements: what widens numbers, and narrows them again,
    is then a shift or a mask.
    """
    raise NotImplementedError


@overload(load_pair)
def _load_pair(source: Any, pair: Any) -> Any:
    def bfloat16(source: Any, pair: Any) -> Any:
        word = _word_at(source, pair)
        return _float_of(np.uint32(word << np.uint32(16))), _float_of(np.uint32(word & np.uint32(0xFFFF0000)))

    def others(source: Any, pair: Any) -> Any:
        return load(source, 2 * pair), load(source, 2 * pair + 1)

    return bfloat16 if source.dtype == types.uint16 else others


def store_pair(target: Elements, pair: int, first: np.float32, second: np.float32) -> None:
    """Write two elements side by side, rounded to nearest even; in place of what is no number, any number."""
    raise NotImplementedError


@overload(store_pair)
def _store_pair(target: Any, pair: Any, first: Any, second: Any) -> Any:
    def bfloat16(target: Any, pair: Any, first: Any, second: Any) -> Any:
        lower = _rounded(first) >> np.uint32(16)
        _set_word_at(target, pair, np.uint32(lower | (_rounded(second) & np.uint32(0xFFFF0000))))

    def others(target: Any, pair: Any, first: Any, second: Any) -> Any:
        store(target, 2 * pair, first)
        store(target, 2 * pair + 1, second)

    return bfloat16 if target.dtype == types.uint16 else others


@inlined
def _rounded(number: Any) -> Any:
    """Return bits whose upper half is that of the nearest bfloat16; wrong for what is no number."""
    bits = _bits_of(number)
    return np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))


def store(target: Elements, index: int, number: np.float32) -> None:
    """Write a float32, rounded to nearest even."""
    raise NotImplementedError


@overload(store)
def _store(target: Any, index: Any, number: Any) -> Any:
    def bfloat16(target: Any, index: Any, number: Any) -> Any:
        rounded = np.uint16(_rounded(number) >> np.uint32(16))
        target[index] = rounded if number == number else np.uint16(0x7FC0)  # noqa: PLR0124  # NaN

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
