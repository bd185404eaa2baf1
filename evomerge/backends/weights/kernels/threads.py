"""Threads that run kernels: as many as this process may use cores, unless it is told otherwise.

Kernels let go of Python's lock, so plain threads are enough. Units are large, and results are gathered in the order of
the units, so nothing depends on how many threads there are.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TypeVar

R = TypeVar("R")


def spans(size: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield the begins and ends of pieces of at most `step` elements."""
    for begin in range(0, size, step):
        yield begin, min(begin + step, size)


class Threads:
    """A pool that is made when there is more than one unit of work."""

    def __init__(self, count: int | None = None) -> None:
        """Take `count` threads; without it what OMP_NUM_THREADS says, or else one for each core that may be used."""
        told = os.environ.get("OMP_NUM_THREADS", "")
        self.count = count or (int(told) if told.isdigit() and int(told) else len(os.sched_getaffinity(0)))

    def map(self, work: Callable[[int, int], R], units: Iterable[tuple[int, int]]) -> list[R]:
        """Return the results of `work(begin, end)` for all units, in their order."""
        units = list(units)
        if self.count == 1 or len(units) < 2:
            return [work(begin, end) for begin, end in units]
        begins, ends = zip(*units, strict=True)
        return list(self._pool.map(work, begins, ends))

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.count, thread_name_prefix="evomerge-kernel")
