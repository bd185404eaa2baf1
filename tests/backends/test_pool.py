"""Several backends as one: candidates are spread over them, and one that fails does not stop the others."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from evomerge.backends.pool import Pool
from evomerge.backends.protocol import Model, Placement, Unsupported
from evomerge.errors import BackendError
from evomerge.exchange import Answer, Request
from evomerge.recipe.tree import Recipe, Source

RECIPE = Source("model")


class Counting:
    """A backend that counts who holds it, and fails as long as it is told to."""

    def __init__(self, slots: int = 1) -> None:
        self.slots, self.batch_size = slots, 7
        self.held, self.most, self.total, self.closed = 0, 0, 0, False
        self.broken = False

    def plan(self, recipe: Recipe) -> Placement | Unsupported:
        return Unsupported("no") if recipe == Source("other") else Placement("here", 5, "float32")

    @asynccontextmanager
    async def hold(self, recipe: Recipe) -> AsyncGenerator[Model]:
        if self.broken:
            raise BackendError(f"broken, and asked for {recipe}")
        self.held += 1
        self.total += 1
        self.most = max(self.most, self.held)
        try:
            yield self
        finally:
            self.held -= 1

    async def answer(self, requests: Sequence[Request]) -> AsyncIterator[tuple[int, Answer]]:
        for index in range(len(requests)):
            yield index, Answer(text="")

    async def close(self) -> None:
        self.closed = True


def test_the_pool_has_the_slots_of_all_and_plans_for_all() -> None:
    pool = Pool([Counting(2), Counting(3)])
    assert (pool.slots, pool.batch_size) == (5, 7)
    assert pool.plan(RECIPE) == Placement("here, 2 times", 10, "float32")
    assert pool.plan(Source("other")) == Unsupported("no")


def test_recipes_held_at_the_same_time_fill_every_slot_once() -> None:
    backends = [Counting(2), Counting(1)]
    pool = Pool(backends)

    async def run() -> None:
        inside = asyncio.Barrier(3)

        async def hold() -> None:
            async with pool.hold(RECIPE):
                await inside.wait()

        await asyncio.gather(hold(), hold(), hold())
        await pool.close()

    asyncio.run(asyncio.wait_for(run(), 20))
    assert [backend.most for backend in backends] == [2, 1]
    assert all(backend.closed for backend in backends)


def test_one_that_failed_comes_last_until_it_works_again() -> None:
    backends = [Counting(), Counting()]
    pool = Pool(backends)

    async def hold() -> None:
        async with pool.hold(RECIPE):
            pass

    async def run() -> None:
        backends[0].broken = True
        with pytest.raises(BackendError):
            await hold()
        for _ in range(3):
            await hold()
        assert [backend.total for backend in backends] == [0, 3]
        backends[0].broken = False
        async with pool.hold(RECIPE):
            await hold()  # the other one is full
        assert [backend.total for backend in backends] == [1, 4]
        await hold()
        assert [backend.total for backend in backends] == [2, 4]

    asyncio.run(asyncio.wait_for(run(), 20))
