"""How the magnitudes of some numbers are distributed, kept so that a new density is a lookup.

Magnitudes are counted as bfloat16 numbers (see `strategies.merge.magnitudes`), in chunks, so that the place where the
last of several equal entries stands is found by looking through one chunk. The numbers follow, element by element, from
tensors: differences to the base here, variances over models elsewhere. A bfloat16 task vector's histogram takes about
6 % of its memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.backends.weights.kernels.jit import compiled, inlined
from evomerge.backends.weights.kernels.numbers import bin_of, delta, load
from evomerge.backends.weights.kernels.threads import spans
from evomerge.strategies.merge.magnitudes import BINS, Band, Magnitudes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evomerge.backends.weights.kernels.numbers import Elements
    from evomerge.backends.weights.kernels.threads import Threads
    from evomerge.backends.weights.kernels.work import Sources

Arrays = tuple["Elements", ...]
Value = Callable[[Arrays, int], np.float32]
"""Returns the number at an index that follows from some tensors; a part of the loops that call it."""


@dataclass(frozen=True, slots=True)
class Loops:
    """What is done with a `Value`: the loops `extremes`, `count` and `place`, compiled for it alone.

    Compiled code in which a function is an argument could not be kept for the next process.
    """

    extremes: Callable[[Arrays], tuple[int, int]]
    count: "Callable[[Arrays, int, NDArray[np.uint16], NDArray[np.int64]], None]"
    place: Callable[[Arrays, int, int], int]


CHUNK = 1 << 15
"""Elements that are counted together; a bin's count in a chunk fits 16 bits."""
_UNIT = 1 << 20
_LOOK = 1 << 9


@dataclass(frozen=True)
class Histogram:
    """The magnitudes of a tensor's numbers.

    `counts` has shape (chunks, width), uint16, for the bins from `lowest` on; entries that are zero are counted in
    `zeros` (chunks,). The tensors themselves are not kept, and are asked for where a chunk has to be looked through.
    """

    size: int
    lowest: int
    counts: "NDArray[np.uint16]"
    zeros: "NDArray[np.int64]"

    @classmethod
    def of(cls, loops: Loops, arrays: Arrays, threads: "Threads") -> "Histogram":
        """Count the numbers that follow from some tensors of one size, in two passes over these."""
        size = arrays[0].size
        found = threads.map(lambda begin, end: loops.extremes(parts(arrays, begin, end)), spans(size, _UNIT))
        lowest = min((low for low, _ in found), default=BINS)
        width = max(max((high for _, high in found), default=0) - lowest + 1, 0)
        chunks = -(-size // CHUNK)
        counts, zeros = np.zeros((chunks, width), np.uint16), np.zeros(chunks, np.int64)

        def add(begin: int, end: int) -> None:
            first, last = begin // CHUNK, -(-end // CHUNK)
            loops.count(parts(arrays, begin, end), lowest, counts[first:last], zeros[first:last])

        threads.map(add, spans(size, _UNIT))
        return cls(size, lowest, counts, zeros)

    @property
    def bytes(self) -> int:
        """The memory it takes."""
        return self.counts.nbytes + self.zeros.nbytes

    @property
    def magnitudes(self) -> Magnitudes:
        """The counts of the whole tensor."""
        counts = np.zeros(BINS, np.int64)
        counts[self.lowest : self.lowest + self.counts.shape[1]] = self._totals
        counts[0] += self.zeros.sum()
        return Magnitudes(counts)

    def band(self, first: int, last: int) -> Band:
        """Return what `Magnitudes.band` returns."""
        return Band.between(first, last, self._end)

    def cut(self, loops: Loops, arrays: Arrays, bin_: int, places: int) -> int:
        """Return the flat index before which exactly `places` entries of a bin stand; the size if there are fewer.

        `loops` and `arrays` are those that were counted with.
        """
        inside = bin_ - self.lowest
        column = self.counts[:, inside] if 0 <= inside < self.counts.shape[1] else self.zeros if bin_ == 0 else None
        if places <= 0:
            return 0
        if column is None:
            return self.size
        passed = np.cumsum(column, dtype=np.int64)
        chunk = int(np.searchsorted(passed, places))
        if chunk == len(passed):
            return self.size
        left = places - (int(passed[chunk - 1]) if chunk else 0)
        begin = chunk * CHUNK
        return begin + loops.place(parts(arrays, begin, begin + CHUNK), bin_, left)

    @cached_property
    def _totals(self) -> "NDArray[np.int64]":
        return self.counts.sum(axis=0, dtype=np.int64)

    @cached_property
    def _larger(self) -> "NDArray[np.int64]":
        """How many entries are in each bin or above it, from the highest bin down."""
        return np.cumsum(self._totals[::-1])

    def _end(self, position: int) -> tuple[int, int]:
        """Return the bin of the entry before `position`, and how many of that bin come before `position`."""
        if position == 0:
            return BINS, 0
        above = int(np.searchsorted(self._larger, position))
        before = int(self._larger[above - 1]) if above else 0
        return (0 if above == len(self._larger) else self.lowest + len(self._larger) - 1 - above), position - before


@lru_cache(1 << 12)
def edge(bin_: int) -> np.float32:
    """Return the smallest magnitude that, rounded to bfloat16, is in this bin or above it; infinity beyond the last."""
    if bin_ <= 0:
        return np.float32(0)
    if bin_ >= BINS:
        return np.float32(np.inf)
    return np.uint32((bin_ << 16) - (0x8000 if bin_ % 2 == 0 else 0x7FFF)).view(np.float32)


def of_delta(sources: "Sources", index: int) -> Histogram:
    """Return the magnitudes of an input's difference to the base, made once a study."""
    return sources.keep(
        "histogram",
        (index,),
        lambda: Histogram.of(DIFFERENCE, sources.pair(index), sources.threads),
        lambda found: found.bytes,
    )


def parts(arrays: Arrays, begin: int, end: int) -> Arrays:
    """Return the elements from `begin` up to, and without, `end` of each of some tensors."""
    return tuple(array[begin:end] for array in arrays)


@inlined
def extremes(value: Value, arrays: Arrays) -> tuple[int, int]:
    """Return the lowest bin of what is not zero, and the highest."""
    lowest, highest = np.uint32(BINS), np.uint32(0)
    for k in range(arrays[0].size):
        found = bin_of(value(arrays, k))
        highest = max(highest, found)
        lowest = min(lowest, found if found > np.uint32(0) else np.uint32(BINS))
    return int(lowest), int(highest)


@inlined
def count(value: Value, arrays: Arrays, lowest: int, counts: "NDArray[np.uint16]", zeros: "NDArray[np.int64]") -> None:
    """Count magnitudes by chunk, from the bin `lowest` on, and zeros apart."""
    # two loops for each chunk: the first finds many bins at once, which the second, adding up, could not
    found = np.empty(CHUNK, np.uint16)
    start = np.uint32(lowest)
    for chunk in range(zeros.size):
        begin = chunk * CHUNK
        size = min(CHUNK, arrays[0].size - begin)
        none = 0
        for k in range(size):
            bin_ = bin_of(value(arrays, begin + k))
            none += 1 if bin_ == np.uint32(0) else 0
            found[k] = np.uint16(bin_ - start if bin_ > np.uint32(0) else np.uint32(0xFFFF))
        zeros[chunk] += none
        own = counts[chunk]
        for k in range(size):
            column = np.int64(found[k])
            if column != 0xFFFF:
                own[column] += 1


@inlined
def place(value: Value, arrays: Arrays, bin_: int, places: int) -> int:
    """Return the index after the element of a bin that is the `places`-th of its kind."""
    size = arrays[0].size
    wanted = np.uint32(bin_)
    for begin in range(0, size, _LOOK):
        end = min(begin + _LOOK, size)
        there = 0
        for k in range(begin, end):  # many at once; which one it is, is asked where it must be
            there += 1 if bin_of(value(arrays, k)) == wanted else 0
        if there < places:
            places -= there
            continue
        for k in range(begin, end):
            places -= 1 if bin_of(value(arrays, k)) == wanted else 0
            if places == 0:
                return k + 1
    return size


@inlined
def _difference(arrays: Any, k: Any) -> Any:
    return delta(arrays[1], k, load(arrays[0], k))


@compiled
def _extreme_differences(arrays: Any) -> tuple[int, int]:
    return extremes(_difference, arrays)


@compiled
def _count_differences(arrays: Any, lowest: Any, counts: Any, zeros: Any) -> None:
    count(_difference, arrays, lowest, counts, zeros)


@compiled
def _place_difference(arrays: Any, bin_: Any, places: Any) -> int:
    return place(_difference, arrays, bin_, places)


DIFFERENCE = Loops(_extreme_differences, _count_differences, _place_difference)
"""The second tensor's difference to the first: a task vector."""
