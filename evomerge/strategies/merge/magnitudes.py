"""How many entries of a tensor have which magnitude, and which of them are the largest.

Magnitudes are compared as bfloat16 numbers (rounded to nearest even, 8 significant bits): there are 32,768 of these, so
one count of a tensor answers every density at once. Of entries whose magnitudes are equal in this sense the one of
lower flat (row-major) index counts as larger, so that any number of largest entries is exact and always the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

BINS = 1 << 15
"""Number of magnitudes that a bfloat16 number can have; those from 0x7F80 on are infinite or no numbers."""


@dataclass(frozen=True, slots=True)
class Band:
    """A run of entries in the order of falling magnitude, as what an entry's bin and its place in the bin must be.

    An entry of bin b, before which `place` entries of that bin stand in the tensor, belongs to it iff it lies above the
    `low` end (b > low, or b = low and place < `low_places`) and below the `high` end (b < high, or b = high and
    place >= `high_places`).
    """

    low: int
    low_places: int
    high: int = BINS
    high_places: int = 0

    @classmethod
    def between(cls, first: int, last: int, end: Callable[[int], tuple[int, int]]) -> "Band":
        """Return the entries from the `first` (counted from 0) up to, and without, the `last` in falling magnitude.

        `end(position)` returns the bin of the entry before a position, and how many of that bin come before it.
        """
        if last <= first:
            return cls(low=BINS, low_places=0)
        return cls(*end(last), *end(first))


@dataclass(frozen=True)
class Magnitudes:
    """The number of entries in each bin, int64 of shape (32768,)."""

    counts: "NDArray[np.int64]"

    @classmethod
    def of(cls, *tensors: "Tensor") -> "Magnitudes":
        """Count the entries of some tensors."""
        import torch

        counted = sum(torch.bincount(bins(tensor), minlength=BINS) for tensor in tensors)
        return cls(torch.as_tensor(counted, dtype=torch.int64).cpu().numpy())

    def __add__(self, other: "Magnitudes") -> "Magnitudes":
        return Magnitudes(self.counts + other.counts)

    @property
    def size(self) -> int:
        """How many entries were counted."""
        return int(self.counts.sum())

    @property
    def nbytes(self) -> int:
        """The memory it takes, with the sums that bands follow from."""
        return 2 * self.counts.nbytes

    def band(self, first: int, last: int) -> Band:
        """Return the entries from the `first` (counted from 0) up to, and without, the `last` in falling magnitude."""
        return Band.between(first, last, self._end)

    def _end(self, position: int) -> tuple[int, int]:
        """Return the bin that the entry before `position` is in, and how many of that bin come before `position`."""
        import numpy as np

        if position == 0:
            return BINS, 0
        place = int(np.searchsorted(self._larger, position))
        return BINS - 1 - place, position - (int(self._larger[place - 1]) if place else 0)

    @cached_property
    def _larger(self) -> "NDArray[np.int64]":
        """How many entries are in a bin or above it, from the last bin down."""
        import numpy as np

        return np.cumsum(self.counts[::-1])


def bins(tensor: "Tensor") -> "Tensor":
    """Return the bin of each entry as int64, flat: its magnitude's bits as a bfloat16 number; NaN has no sign."""
    import torch

    return tensor.detach().flatten().abs().float().bfloat16().view(torch.int16).long() & (BINS - 1)


def select_(delta: "Tensor", band: Band, before: Magnitudes | None = None) -> "Tensor":
    """Set to zero, in place, what does not belong to the band, and return the tensor.

    `before` counts what stands before this tensor where the band is one of several tensors together.
    """
    import torch

    found = bins(delta)
    kept = (found > band.low) & (found < band.high)
    for end in {band.low, band.high} - {BINS}:
        there = (found == end).nonzero().flatten()
        place = torch.arange(len(there), device=delta.device)
        if before is not None:
            place += int(before.counts[end])
        above = place < band.low_places if end == band.low else torch.ones_like(place, dtype=torch.bool)
        kept[there] = above & (place >= band.high_places) if end == band.high else above
    return delta.mul_(kept.view(delta.shape))
