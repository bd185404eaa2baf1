"""How the magnitudes of a task vector are distributed, counted on the device once a study, in chunks.

Magnitudes are counted as bfloat16 numbers (see `strategies.merge.magnitudes`). Of a bfloat16 task vector the counts
take about 6 % of its memory.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from evomerge.strategies.merge.magnitudes import BINS, Magnitudes, bins

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 1 << 16
"""Elements that are counted together."""

_SLAB = 1 << 6  # chunks that are counted in one go


@dataclass(frozen=True)
class DeviceHistogram:
    """The magnitudes of a task vector's entries, in columns: the first for zeros, then one for each bin from `lowest`.

    `passed` (chunks + 1, columns), int32, has how many entries stand before each chunk; `larger` (columns + 1,), int64,
    how many are in that many of the last columns together. Both are on the device.
    """

    size: int
    lowest: int
    passed: "Tensor"
    larger: "Tensor"

    @classmethod
    def of(cls, base: "Tensor", model: "Tensor") -> "DeviceHistogram":
        """Count the entries of a model's difference to the base, in two passes over both."""
        import torch

        old, new = base.reshape(-1), model.reshape(-1)
        slabs = range(0, new.numel(), _SLAB * CHUNK)

        def found(start: int) -> "Tensor":
            span = slice(start, start + _SLAB * CHUNK)
            return bins(new[span].float() - old[span].float()).bitwise_and_(BINS - 1)  # what is no number has a sign

        counts = torch.zeros(BINS, dtype=torch.int64, device=new.device)
        for start in slabs:
            counts += torch.bincount(found(start), minlength=BINS)
        there = counts[1:].nonzero().flatten().add_(1)
        lowest, highest = (int(there[0]), int(there[-1])) if there.numel() else (1, 0)
        columns, chunks = highest - lowest + 2, -(-new.numel() // CHUNK)
        passed = torch.zeros((chunks + 1, columns), dtype=torch.int32, device=new.device)
        for start in slabs:
            own = passed[1 + start // CHUNK :][:_SLAB]
            column = found(start).sub_(lowest - 1).clamp_(min=0)
            chunk = torch.arange(column.numel(), device=new.device).div_(CHUNK, rounding_mode="floor")
            counted = torch.bincount(column.add_(chunk.mul_(columns)), minlength=own.numel())
            own.copy_(counted.view(own.shape))
        passed = passed.cumsum(0, dtype=torch.int32)
        larger = torch.zeros(columns + 1, dtype=torch.int64, device=new.device)
        larger[1:] = passed[-1].flip(0).cumsum(0)
        return cls(new.numel(), lowest, passed, larger)

    @property
    def bytes(self) -> int:
        """The memory it takes on the device."""
        return self.passed.nbytes + self.larger.nbytes

    @cached_property
    def words(self) -> tuple[int, ...]:
        """What `ends` is told of it."""
        chunks, columns = self.passed.shape
        return self.larger.data_ptr(), self.passed.data_ptr(), columns, self.lowest, chunks - 1, self.size

    @property
    def magnitudes(self) -> Magnitudes:
        """The counts of the whole tensor."""
        import numpy as np

        counts, found = np.zeros(BINS, np.int64), self.passed[-1].cpu().numpy()
        counts[0] = found[0]
        counts[self.lowest : self.lowest + len(found) - 1] = found[1:]
        return Magnitudes(counts)
