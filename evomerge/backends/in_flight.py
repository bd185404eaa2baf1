"""Requests under way at a server: many are asked at a time, and answers come as they come.

As many tasks as may be under way read from one list, and wait until their answers are taken, so that memory is bounded
by that and not by the number of requests.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Generic, TypeVar

from evomerge.exchange import Answer

R = TypeVar("R")


class InFlight(Generic[R]):
    """Asks requests by `ask`, at most `width` at a time, until `stop`."""

    def __init__(self, ask: Callable[[R], Awaitable[Answer]], width: int) -> None:
        self._ask, self._width = ask, width
        self._workers: set[asyncio.Task[None]] = set()

    async def answers(self, requests: Sequence[R]) -> AsyncIterator[tuple[int, Answer]]:
        """Yield (index, answer) as answers come. Raises what asking raises."""
        waiting = iter(enumerate(requests))
        answered: asyncio.Queue[tuple[int, Answer] | Exception] = asyncio.Queue(self._width)
        for _ in range(min(self._width, len(requests))):
            worker = asyncio.create_task(self._work(waiting, answered))
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        for _ in requests:
            found = await answered.get()
            if isinstance(found, Exception):
                raise found
            yield found

    async def stop(self) -> None:
        """Cancel whatever is still asked."""
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _work(
        self, waiting: Iterator[tuple[int, R]], answered: "asyncio.Queue[tuple[int, Answer] | Exception]"
    ) -> None:
        for index, request in waiting:
            try:
                await answered.put((index, await self._ask(request)))
            except Exception as error:  # told to whoever waits for the answers
                await answered.put(error)
                return
