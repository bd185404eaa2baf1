"""What is known of tensors whatever the parameters are, computed once a study: histograms, products, whole models.

Bounded: what was not asked for the longest is forgotten when more than the limit is kept, and is computed again if
need be.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from evomerge.backends.weights.kernels.scratch import Scratch
    from evomerge.backends.weights.kernels.threads import Threads

R = TypeVar("R")

LIMIT = 4 << 30
"""Bytes of memory that are kept. The histograms of a task vector take about 6 % of its size in bfloat16."""


class Statistics:
    """A store of results by key, the threads that compute them, and files for those that are large."""

    def __init__(self, limit: int = LIMIT, threads: int | None = None) -> None:
        self.computed: Counter[str] = Counter()
        """How often something of each kind was computed."""
        self._limit = limit
        self._threads = threads
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    @cached_property
    def threads(self) -> "Threads":
        """The threads that kernels run in."""
        from evomerge.backends.weights.kernels.threads import Threads

        return Threads(self._threads)

    @cached_property
    def scratch(self) -> "Scratch":
        """Room for what memory should not hold."""
        from evomerge.backends.weights.kernels.scratch import Scratch

        return Scratch()

    def get(self, kind: str, key: Hashable, make: Callable[[], R], size: Callable[[R], int]) -> R:
        """Return what is kept under kind and key, or make and keep it; `size` tells its bytes of memory.

        Several threads may ask, but not for the same at the same time.
        """
        with self._lock:
            found = self._kept.get((kind, key))
            if found is not None:
                self._kept.move_to_end((kind, key))
                return cast("R", found[0])
        made = make()
        taken = size(made)
        with self._lock:
            self.computed[kind] += 1
            self._kept[kind, key] = made, taken
            self._bytes += taken
            while self._bytes > self._limit and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1][1]
        return made
