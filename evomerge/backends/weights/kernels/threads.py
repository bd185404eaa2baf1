"""Threads that run kernels: as many as this process may use cores, unless it is told otherwise.

Kernels let go of Python's lock, so plain threads are enough. Units are large, and results are gathered in the order of
the units, so nothing depends on how many threads there are.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cached_property
from threading import local
from typing import TypeVar

R = TypeVar("R")
T = TypeVar("T")

_MANY = 64
"""Units from which on a thread that leads a tensor's merge hands them over."""


def spans(size: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield the begins and ends of pieces of at most `step` elements."""
    for begin in range(0, size, step):
        yield begin, min(begin + step, size)


class Threads:
    """A pool that is made when there is more than one unit of work."""

    def __init__(self, count: int | None = None) -> None:
        """Take `count` threads; without it what OMP_NUM_THREADS says, or else one for each core that may be used."""
        told = os.environ.get("OMP_NUM_THREADS", "")
        self._own = local()
        self.count = count or (int(told) if told.isdigit() and int(told) else len(os.sched_getaffinity(0)))

    def map(self, work: Callable[[int, int], R], units: Iterable[tuple[int, int]]) -> list[R]:
        """Return the results of `work(begin, end)` for all units, in their order."""
        units = list(units)
        if self.count == 1 or len(units) < (_MANY if getattr(self._own, "leads", False) else 2):
            return [work(begin, end) for begin, end in units]
        begins, ends = zip(*units, strict=True)
        return list(self._pool.map(work, begins, ends))

    def ahead(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield the results of `work(item)` in the order of the items, working on a few at a time.

        `work` may call `map`, which then shares only many units with other threads: handing over a unit takes Python's
        lock, for which a thread may wait as long as a unit takes.
        """
        if self.count == 1:
            yield from map(work, items)
            return
        begun: deque[Future[R]] = deque()
        try:
            for item in items:
                begun.append(self._leaders.submit(work, item))
                if len(begun) == self.count:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:  # nothing goes on behind the back of one who stopped
            for future in begun:
                future.cancel()
            wait(begun)

    @cached_property
    def _leaders(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.count, thread_name_prefix="evomerge-tensor", initializer=self._lead)

    def _lead(self) -> None:
        self._own.leads = True

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.count, thread_name_prefix="evomerge-kernel")
