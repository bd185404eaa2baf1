"""Storage dtypes inside kernels: elements are read as float32, and rounded to nearest even when they are written.

bfloat16 is read and rounded as integers, which is the same on every device and in Triton's interpreter. What is told at
launch is an address, since one launch serves many tensors.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

import triton.language as tl

from evomerge.backends.weights.gpu.jit import compiled

if TYPE_CHECKING:
    import torch

# the types of Triton's language are not Python's
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false

_BF16 = tl.constexpr(0)
_FP16 = tl.constexpr(1)
_FP32 = tl.constexpr(2)

_BINS = tl.constexpr(1 << 15)
_INFINITE = tl.constexpr(0x7F800000)
_LARGEST_BF16 = tl.constexpr(0x7F7F7FFF)
_LARGEST_FP16 = tl.constexpr(0x477FEFFF)
_LARGEST_FP32 = tl.constexpr(0x7F7FFFFF)

ALIGNMENT = 16
"""Bytes: tensors that all start at a multiple of this are read and written in larger words."""


@cache
def kind_of(dtype: "torch.dtype") -> int | None:
    """Return how kernels are told a dtype; None for what they do not read."""
    import torch

    return {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}.get(dtype)


@compiled
def load(
    address: "Any", start: "Any", offsets: "Any", there: "Any", KIND: tl.constexpr, ALIGNED: tl.constexpr
) -> "Any":
    """Return the elements at `start` plus offsets as float32; zero where `there` says so. A `there` of None is all."""
    if KIND == _BF16:
        bits = tl.load(_at(address, start, tl.uint16, ALIGNED) + offsets, mask=there)
        number = (bits.to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    elif KIND == _FP16:
        number = tl.load(_at(address, start, tl.float16, ALIGNED) + offsets, mask=there).to(tl.float32)
    else:
        number = tl.load(_at(address, start, tl.float32, ALIGNED) + offsets, mask=there)
    return number if there is None else tl.where(there, number, 0.0)


@compiled
def store(
    address: "Any", start: "Any", offsets: "Any", there: "Any", number: "Any", KIND: tl.constexpr, ALIGNED: tl.constexpr
) -> "Any":
    """Write float32 elements, and return 1 for each that is no finite number of the dtype, 0 for others."""
    if KIND == _BF16:
        bits = number.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        rounded = tl.where(number == number, rounded, 0x7FC0)  # noqa: PLR0124  # NaN
        tl.store(_at(address, start, tl.uint16, ALIGNED) + offsets, rounded.to(tl.uint16), mask=there)
        wrong = _exceeds(number, _LARGEST_BF16)
    elif KIND == _FP16:
        tl.store(_at(address, start, tl.float16, ALIGNED) + offsets, number.to(tl.float16), mask=there)
        wrong = _exceeds(number, _LARGEST_FP16)
    else:
        tl.store(_at(address, start, tl.float32, ALIGNED) + offsets, number, mask=there)
        wrong = _exceeds(number, _LARGEST_FP32)
    return wrong if there is None else tl.where(there, wrong, 0)


@compiled
def bin_of(number: "Any") -> "Any":
    """Return the bits of a float32's magnitude as bfloat16, rounded to nearest even, as int32."""
    bits = number.to(tl.uint32, bitcast=True) & 0x7FFFFFFF
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to(tl.int32)


@compiled
def edge(bin_: "Any") -> "Any":
    """Return the smallest magnitude that, rounded to bfloat16, is in this bin or above it; infinity beyond the last."""
    bits = (bin_ << 16) - 0x7FFF - ((bin_ & 1) ^ 1)
    bits = tl.where(bin_ <= 0, 0, tl.where(bin_ >= _BINS, _INFINITE, bits))
    return bits.to(tl.float32, bitcast=True)


@compiled
def _at(address: "Any", start: "Any", KIND: tl.constexpr, ALIGNED: tl.constexpr) -> "Any":
    pointer = address.to(tl.pointer_type(KIND)) + start
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@compiled
def _exceeds(number: "Any", LARGEST: tl.constexpr) -> "Any":
    """Return 1 for a magnitude whose bits are more than those of the largest number, or for no number."""
    return ((number.to(tl.int32, bitcast=True) & 0x7FFFFFFF) > LARGEST).to(tl.int32)
