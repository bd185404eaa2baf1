"""Several backends that hold the same recipes, as one: candidates are spread over them.

A recipe goes to the backend with the most room, one that failed lately last; so one that fails does not stop the
others, and the trial that it was asked for is asked of another.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from evomerge.backends.protocol import Backend, Model, Placement, Unsupported
from evomerge.errors import BackendError
from evomerge.recipe.tree import Recipe


class Pool:
    """Backends of the same kind and settings; keeps the promises of `backends.protocol.Backend`."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._backends = list(backends)
        self._held = [0] * len(self._backends)
        self._failed = [0] * len(self._backends)

    @property
    def slots(self) -> int:
        """How many recipes all of them hold at the same time."""
        return sum(backend.slots for backend in self._backends)

    @property
    def batch_size(self) -> int | None:
        """That of the first: they have the same settings."""
        return self._backends[0].batch_size

    def plan(self, recipe: Recipe) -> Placement | Unsupported:
        """Say what one of them says, and how many there are."""
        found = self._backends[0].plan(recipe)
        if isinstance(found, Unsupported):
            return found
        count = len(self._backends)
        return Placement(f"{found.summary}, {count} times", found.memory_bytes * count, found.dtype)

    @asynccontextmanager
    async def hold(self, recipe: Recipe) -> AsyncGenerator[Model]:
        """Hold the recipe with one of them. Raises what that raises."""
        place = min(range(len(self._backends)), key=lambda at: (self._full(at), self._failed[at], self._held[at], at))
        self._held[place] += 1
        try:
            async with self._backends[place].hold(recipe) as model:
                yield model
            self._failed[place] = 0
        except BackendError:
            self._failed[place] += 1
            raise
        finally:
            self._held[place] -= 1

    async def close(self) -> None:
        """Free everything. Calling it twice is harmless."""
        ended = await asyncio.gather(*(backend.close() for backend in self._backends), return_exceptions=True)
        for error in ended:
            if isinstance(error, BaseException):
                raise error

    def _full(self, place: int) -> bool:
        return self._held[place] >= self._backends[place].slots
