"""The random numbers of `strategies.merge.masks` inside kernels, the same bits."""

from typing import Any

import triton.language as tl

from evomerge.backends.weights.gpu.jit import compiled

# the types of Triton's language are not Python's
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false

_GOLDEN = tl.constexpr(0x9E3779B97F4A7C15)
_FIRST = tl.constexpr(0xBF58476D1CE4E5B9)
_SECOND = tl.constexpr(0x94D049BB133111EB)


@compiled
def randoms(key: "Any", start: "Any", SIZE: tl.constexpr) -> "Any":
    """Return the signed numbers of SIZE elements from the flat index `start` on, an even number; `key` is int64."""
    number = (start // 2 + 1).to(tl.uint64) + tl.arange(0, SIZE // 2).to(tl.uint64)
    word = key.to(tl.uint64, bitcast=True) + number * _GOLDEN
    word = (word ^ (word >> 30)) * _FIRST
    word = (word ^ (word >> 27)) * _SECOND
    word = word ^ (word >> 31)
    lower = word.to(tl.uint32)
    upper = (word >> 32).to(tl.uint32)
    return tl.interleave(lower, upper).to(tl.int32, bitcast=True)
