"""Many tensors in one launch: tables of their addresses and parameters, and of the pieces that they are cut in.

The price of a launch, and of waiting for its result, is paid a few times for a model and not for each of its tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.backends.weights.gpu.deltas import merge_deltas
from evomerge.backends.weights.gpu.ends import find_ends
from evomerge.backends.weights.gpu.histograms import CHUNK
from evomerge.backends.weights.gpu.masses import add_masses, set_factors
from evomerge.backends.weights.gpu.sums import merge_sum
from evomerge.backends.weights.statistics import Statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_STEPS = 16  # blocks that a program works on, one after the other
_WARPS = 4
_SEARCHED = 4096  # elements that are looked through together


@dataclass(frozen=True, slots=True)
class Variant:
    """What is known when a kernel is compiled, and so is the same for all tensors of a launch.

    `kinds` has the dtypes of output, base (0 where there is none) and models. `how` says what happens to entries first
    ("all" are taken, those above a "low" bound or within a "band", or some are dropped: "drop", or "drop l1" where the
    others make up for them), and `rule` how they are combined. Of weighted sums, of "models" or of "differences",
    `rule` says along what there are weights.
    """

    kinds: tuple[int, ...]
    aligned: bool
    how: str
    rule: str

    @property
    def models(self) -> int:
        """The number of models."""
        return len(self.kinds) - 2

    @property
    def block(self) -> int:
        """Elements that a program works on at a time.

        Eight a thread are read at once as 16-bit numbers; where a thread has to hold all models' entries, less of many.
        """
        summed = self.how in {"models", "differences"}
        return 32 * _WARPS * (8 if summed or self.models <= 4 else 4 if self.models <= 12 else 2)


@dataclass(frozen=True, slots=True)
class Job:
    """One tensor: its size, and its rows of the kernels' tables; `ends` has those of its models' bands.

    `kept` is what must live until the kernel is launched.
    """

    variant: Variant
    size: int
    words: Sequence[int]
    numbers: Sequence[float]
    ends: Sequence[Sequence[int]] = ()
    kept: tuple[object, ...] = ()


@dataclass
class Batch:
    """Tensors of one variant that wait to be merged."""

    variant: Variant
    jobs: list[Job] = field(default_factory=list[Job])
    elements: int = 0

    def add(self, job: Job) -> None:
        """Have one more tensor wait."""
        self.jobs.append(job)
        self.elements += job.size

    def launch(self, bad: "Tensor", statistics: Statistics) -> None:
        """Merge what waits, and add to `bad` (int64, on the device) how many results are no finite numbers.

        Returns before that is done; what is launched afterwards comes after it.
        """
        import torch

        with torch.cuda.device_of(bad):
            _Launch(self.variant, self.jobs, bad, statistics).run()


@dataclass(frozen=True)
class _Launch:
    variant: Variant
    jobs: Sequence[Job]
    bad: "Tensor"
    statistics: Statistics

    def run(self) -> None:
        how, rule = self.variant.how, self.variant.rule
        full, rest = self._pieces
        for pieces, masked in ((full, False), (rest, True)):
            if not len(pieces):
                continue
            told = {**self._told, "MASKED": masked}
            if how in {"models", "differences"}:
                tables = self._words, self._numbers, pieces, self.bad
                merge_sum[len(pieces),](*tables, BASED=how == "differences", ALONG=rule, **told)
            else:
                tables = self._words, self._factored, pieces, *self._bounds, self.bad
                merge_deltas[len(pieces),](*tables, HOW=how.partition(" ")[0], RULE=rule, **told)

    @property
    def _told(self) -> dict[str, Any]:
        """What all kernels are told."""
        variant = self.variant
        return {
            "WORDS": self._words.shape[1],
            "N": variant.models,
            "KINDS": variant.kinds,
            "ALIGNED": variant.aligned,
            "BLOCK": variant.block,
            "num_warps": _WARPS,
            "enable_fp_fusion": False,
        }

    @cached_property
    def _words(self) -> "Tensor":
        return self._moved(np.array([job.words for job in self.jobs], np.int64))

    @cached_property
    def _numbers(self) -> "Tensor":
        return self._moved(np.array([job.numbers for job in self.jobs], np.float32))

    @cached_property
    def _factored(self) -> "Tensor":
        """The numbers, with the factors that hang on what is dropped."""
        if self.variant.how != "drop l1":
            return self._numbers
        import torch

        pieces = torch.cat(self._pieces)
        pieces = pieces[pieces[:, 0].argsort(stable=True)]
        firsts = torch.searchsorted(pieces[:, 0].contiguous(), torch.arange(len(self.jobs) + 1, device=pieces.device))
        masses = torch.empty((len(pieces), self.variant.models, 2), dtype=torch.float64, device=pieces.device)
        add_masses[len(pieces),](self._words, pieces, masses, **self._told)
        grid = len(self.jobs), self.variant.models
        set_factors[grid](masses, firsts, self._numbers, N=self.variant.models, BLOCK=256)
        return self._numbers

    @cached_property
    def _bounds(self) -> "tuple[Tensor, Tensor]":
        """The bounds of all models' bands and where they change; anything where no band is asked for."""
        if self.variant.how not in {"low", "band"}:
            return self.bad, self.bad
        ends = self._moved(np.array([end for job in self.jobs for end in job.ends], np.int64))
        bounds, cuts = ends.new_empty((len(ends), 2)).float(), ends.new_empty(len(ends))
        find_ends[len(ends),](ends, bounds, cuts, CHUNK=CHUNK, BLOCK=_SEARCHED)
        return bounds, cuts

    @cached_property
    def _pieces(self) -> "tuple[Tensor, Tensor]":
        """The pieces of whole blocks, and those of what is left over."""
        sizes = tuple(job.size for job in self.jobs)
        return self.statistics.get(
            "pieces",
            (str(self.bad.device), self.variant.block, sizes),
            lambda: (self._moved(_full(sizes, self.variant.block)), self._moved(_rest(sizes, self.variant.block))),
            lambda tables: tables[0].nbytes + tables[1].nbytes,
        )

    def _moved(self, table: "NDArray[Any]") -> "Tensor":
        import torch

        return torch.from_numpy(table).to(self.bad.device, non_blocking=True)  # else all that was launched is awaited


def _full(sizes: Sequence[int], block: int) -> "NDArray[np.int32]":
    """Return tensor, first block and number of blocks of pieces that are whole blocks: int32 of shape (pieces, 3)."""
    pieces: list[NDArray[np.int32]] = [np.empty((0, 3), np.int32)]
    for job, size in enumerate(sizes):
        firsts = np.arange(0, size // block, _STEPS, dtype=np.int32)
        counts = np.minimum(_STEPS, size // block - firsts)
        pieces.append(np.stack([np.full_like(firsts, job), firsts, counts], axis=1).astype(np.int32))
    return np.concatenate(pieces)


def _rest(sizes: Sequence[int], block: int) -> "NDArray[np.int32]":
    """Return the same of what follows the whole blocks."""
    pieces = [(job, size // block, 1) for job, size in enumerate(sizes) if size % block]
    return np.array(pieces, np.int32).reshape(-1, 3)
