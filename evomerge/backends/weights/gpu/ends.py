"""Where the bands of trimmed task vectors end: bounds on magnitudes, found on the device without waiting for it.

An end is a bin of magnitudes, and a number of its entries, those of lowest index, that belong to the other side. So the
bound changes at one index, before which exactly that many stand: a look-up in what `histograms` counted, and a look
through one chunk.
"""

from typing import Any

import triton.language as tl

from evomerge.backends.weights.gpu.jit import compiled
from evomerge.backends.weights.gpu.numbers import bin_of, edge, load

# the types of Triton's language are not Python's
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false

BY_RANK = -2
"""Stands for the bin of an end that is told as a number of entries, counted from the largest."""

WORDS = 12
"""Of an end: addresses of `larger` and `passed`, columns, lowest bin, chunks, size, addresses and kinds of base and
model, bin, number."""

_BY_RANK = tl.constexpr(BY_RANK)
_WORDS = tl.constexpr(WORDS)
_BINS = tl.constexpr(1 << 15)


@compiled
def find_ends(ends: "Any", bounds: "Any", cuts: "Any", CHUNK: tl.constexpr, BLOCK: tl.constexpr) -> None:
    """Write for each end the bounds before and from its cut on, (ends, 2), and the flat index of the cut, (ends,)."""
    end = tl.program_id(0)
    row = ends + end * _WORDS
    columns = tl.load(row + 2)
    lowest = tl.load(row + 3)
    chunks = tl.load(row + 4)
    size = tl.load(row + 5)
    bin_ = tl.load(row + 10)
    places = tl.load(row + 11)
    if bin_ == _BY_RANK:
        larger = tl.load(row).to(tl.pointer_type(tl.int64))
        rank = _last_below(larger, columns, 1, places)
        places = places - tl.load(larger + rank)
        column = columns - 1 - rank
        bin_ = tl.where(column == 0, 0, lowest + column - 1)
    cut = tl.zeros((), tl.int64)
    if (bin_ >= 0) & (bin_ < _BINS) & (places > 0):
        cut = size
        column = tl.where(bin_ == 0, 0, bin_ - lowest + 1)
        if ((bin_ == 0) | (column > 0)) & (column < columns):
            passed = tl.load(row + 1).to(tl.pointer_type(tl.int32)) + column
            if tl.load(passed + chunks * columns) >= places:
                chunk = _last_below(passed, chunks, columns, places)
                left = places - tl.load(passed + chunk * columns)
                cut = _place(row + 6, chunk * CHUNK, size, bin_, left, BLOCK)
    low = bin_.to(tl.int32)
    tl.store(bounds + 2 * end, edge(low))
    tl.store(bounds + 2 * end + 1, edge(low + 1))
    tl.store(cuts + end, cut)


@compiled
def _last_below(numbers: "Any", count: "Any", stride: "Any", limit: "Any") -> "Any":
    """Return the last index whose number is below a limit, of `count` numbers that never fall, the first below it."""
    low = tl.zeros((), tl.int64)
    high = count
    while high - low > 1:
        middle = (low + high) // 2
        below = tl.load(numbers + middle * stride) < limit
        low = tl.where(below, middle, low)
        high = tl.where(below, high, middle)
    return low


@compiled
def _place(row: "Any", start: "Any", size: "Any", bin_: "Any", left: "Any", BLOCK: tl.constexpr) -> "Any":
    """Return the index after the element of a bin that is the `left`-th of its kind from `start` on."""
    offsets = tl.arange(0, BLOCK)
    cut = size
    while (left > 0) & (start < size):
        there = offsets < size - start
        value = _any(tl.load(row + 1), tl.load(row + 3), start, offsets, there)
        value = value - _any(tl.load(row), tl.load(row + 2), start, offsets, there)
        equal = ((bin_of(value) == bin_) & there).to(tl.int32)
        before = tl.sum((tl.cumsum(equal) < left).to(tl.int32))
        cut = tl.where(before < BLOCK, start + before + 1, cut)
        left = tl.where(before < BLOCK, 0, left - tl.sum(equal))
        start = start + BLOCK
    return cut


@compiled
def _any(address: "Any", kind: "Any", start: "Any", offsets: "Any", there: "Any") -> "Any":
    """Return elements of a dtype that is known at launch alone."""
    if kind == 0:
        number = load(address, start, offsets, there, 0, False)
    elif kind == 1:
        number = load(address, start, offsets, there, 1, False)
    else:
        number = load(address, start, offsets, there, 2, False)
    return number
