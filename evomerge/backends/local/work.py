"""Jobs in the backend's one thread, from where the event loop stands: run, streamed, stopped between two steps.

A job gets a function that it calls between its steps; the function raises `Stopped` once nobody wants the job any more.
Whoever gives a job up waits until it has really stopped, even when cancelled again meanwhile: a step is short.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import Executor
from functools import partial
from threading import Event
from typing import TypeVar

from evomerge.errors import BackendError

Item = TypeVar("Item")

Running = Callable[[], None]
"""Called between steps; raises `Stopped` when the work is not wanted any more."""


class Stopped(BackendError):
    """The work was given up between two steps; who still waits for it is told so."""

    def __init__(self) -> None:
        super().__init__("the recipe was let go before everything was answered")


class Work:
    """The jobs of one holder. All of them end with `stop`, and those started later end at once."""

    def __init__(self, thread: Executor) -> None:
        self._thread = thread
        self._over = Event()
        self._jobs: set[asyncio.Future[None]] = set()

    async def run(self, job: Callable[[Running], None]) -> None:
        """Run a job to its end. Raises what it raises; cancelling this stops it."""
        unwanted = Event()
        future = self._start(job, unwanted)
        try:
            await asyncio.wait([future])
        finally:
            unwanted.set()
            await _settled([future])
        future.result()

    async def stream(self, job: Callable[[Callable[[Item], None], Running], None]) -> AsyncIterator[Item]:
        """Yield what a job emits while it runs, then raise what it raised. Closing the iterator stops it."""
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[tuple[Item] | None]()
        unwanted = Event()

        def emit(item: Item) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, (item,))

        future = self._start(partial(job, emit), unwanted)
        future.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (item := await queue.get()) is not None:
                yield item[0]
        finally:
            unwanted.set()
            await _settled([future])
        future.result()

    async def stop(self) -> None:
        """Stop all jobs and return when they have. Calling it twice is harmless."""
        self._over.set()
        await _settled(self._jobs)

    def _start(self, job: Callable[[Running], None], unwanted: Event) -> "asyncio.Future[None]":
        def running() -> None:
            if unwanted.is_set() or self._over.is_set():
                raise Stopped

        def begun() -> None:
            running()
            job(running)

        future = asyncio.get_running_loop().run_in_executor(self._thread, begun)
        self._jobs.add(future)
        future.add_done_callback(self._jobs.discard)
        return future


async def _settled(futures: "Collection[asyncio.Future[None]]") -> None:
    """Wait until the jobs have ended, whatever became of them; a cancellation meanwhile is passed on afterwards."""
    waiting, cancelled = set(futures), None
    while waiting:
        try:
            done, waiting = await asyncio.wait(waiting)
        except asyncio.CancelledError as error:
            cancelled = error
            continue
        for future in done:
            if not future.cancelled():
                future.exception()  # looked at, so that asyncio does not report it as forgotten
    if cancelled is not None:
        raise cancelled
