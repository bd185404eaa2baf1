"""How many entries have which value, so that one count answers for every order statistic of a whole model.

Values are told apart by 12 significant bits: an order statistic is right within 1 in 4096 of itself, and the smallest
and the largest are exact. Only values that occur are listed, so a summary stays small.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

ROUNDED = 12
"""Bits of a float32's 24 that are rounded away."""
KEYS = 1 << (31 - ROUNDED)
"""Keys lie between -KEYS and KEYS."""


@dataclass(frozen=True)
class Values:
    """The `keys` that occur, rising, int64; how many entries have each, int64; and the smallest and largest entry."""

    keys: "NDArray[np.int64]"
    counts: "NDArray[np.int64]"
    lowest: float
    highest: float

    @classmethod
    def of(cls, tensor: "Tensor") -> "Values":
        """Count the entries of a tensor."""
        import torch

        if not tensor.numel():
            empty = torch.zeros(0, dtype=torch.int64).numpy()
            return cls(empty, empty, float("inf"), float("-inf"))
        found = keys(tensor).flatten()
        if len(found) < KEYS:
            there, counts = cast("tuple[Tensor, Tensor]", torch.unique(found, return_counts=True))
        else:  # faster than sorting as many
            counted = torch.bincount(found.add_(KEYS), minlength=2 * KEYS)
            there = counted.nonzero().flatten()
            there, counts = there - KEYS, counted[there]
        return cls(there.cpu().numpy(), counts.cpu().numpy(), float(tensor.min()), float(tensor.max()))

    def __add__(self, other: "Values") -> "Values":
        import numpy as np

        both, place = np.unique(np.concatenate([self.keys, other.keys]), return_inverse=True)
        counts = np.zeros(len(both), dtype=np.int64)
        np.add.at(counts, place, np.concatenate([self.counts, other.counts]))
        return Values(both, counts, min(self.lowest, other.lowest), max(self.highest, other.highest))

    @property
    def size(self) -> int:
        """How many entries were counted."""
        return int(self._up_to[-1]) if len(self._up_to) else 0

    @property
    def nbytes(self) -> int:
        """The memory it takes."""
        return 3 * self.keys.nbytes

    def key_at(self, position: int) -> int:
        """Return the key of the entry at a position, counted from 0, in rising order. There must be one."""
        import numpy as np

        return int(self.keys[np.searchsorted(self._up_to, position, side="right")])

    def value_at(self, position: int) -> float:
        """Return the entry at a position, counted from 0, in rising order. There must be one."""
        import numpy as np

        if position == 0:
            return self.lowest
        if position == self.size - 1:
            return self.highest
        key = self.key_at(position)
        magnitude = np.array(abs(key) << ROUNDED, dtype=np.int32).view(np.float32)
        return min(max(float(np.copysign(magnitude, key)), self.lowest), self.highest)

    @cached_property
    def _up_to(self) -> "NDArray[np.int64]":
        """How many entries have a key or a smaller one."""
        import numpy as np

        return np.cumsum(self.counts)


def number_above(key: int) -> "np.float32":
    """Return the smallest float32 whose key is larger."""
    import numpy as np

    half = 1 << (ROUNDED - 1)
    if key >= 0:
        return np.uint32((key + 1 << ROUNDED) - half).view(np.float32)
    return -np.uint32((-key << ROUNDED) - half - 1).view(np.float32)


def keys(tensor: "Tensor") -> "Tensor":
    """Return integers in the order of a tensor's values, equal for values equal in 12 significant bits: int64."""
    import torch

    bits = tensor.detach().float().contiguous().view(torch.int32)
    magnitude = bits.bitwise_and(0x7FFFFFFF).long().add_(1 << (ROUNDED - 1)).bitwise_right_shift_(ROUNDED)
    return torch.where(bits < 0, -magnitude, magnitude)
