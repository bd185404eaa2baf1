"""The asynchronous door of the embedded backend: one slot, and one thread that does all the work.

The event loop stays free while the thread computes. Leaving `hold`, closing an answer's iterator or cancelling the task
stops the thread between two steps (a tensor written, a token decoded) and waits for it, so that nothing computes when
`hold` is left. It is always the same thread: torch keeps one pool of threads, and no two recipes meet in the model.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from threading import Lock
from typing import TYPE_CHECKING

from evomerge.backends.local.work import Work
from evomerge.backends.protocol import Placement, Unsupported
from evomerge.backends.settings import LocalSettings
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import BackendError, CandidateError, ConfigError
from evomerge.exchange import Answer, Request
from evomerge.recipe.tree import Recipe, as_weights

if TYPE_CHECKING:
    from evomerge.backends.local.engine import Engine

UNCONSTRAINED = (
    "the embedded backend cannot hold answers to given choices; use backend: {kind: vllm}, or `score: choice`, which "
    "compares the likelihoods of choices"
)


class LocalBackend:
    """Holds one recipe at a time in a model of this process; keeps the promises of `backends.protocol.Backend`."""

    def __init__(self, settings: LocalSettings, store: WeightStore) -> None:
        self._settings, self._store = settings, store
        self._slot = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="evomerge-local")
        self._making = Lock()
        self._made: Engine | None = None
        self._closed = False

    @property
    def slots(self) -> int:
        """One: there is one model in memory."""
        return 1

    @property
    def batch_size(self) -> int | None:
        """How many requests a batch should have, as the settings say."""
        return self._settings.batch_size

    def plan(self, recipe: Recipe) -> Placement | Unsupported:
        """Say how the recipe would be held, from configurations and headers alone."""
        try:
            return self._engine().plan(as_weights(recipe))
        except (CandidateError, ConfigError, BackendError) as error:
            return Unsupported(str(error))

    @asynccontextmanager
    async def hold(self, recipe: Recipe) -> AsyncGenerator["LocalModel"]:
        """Hold the recipe once the slot is free.

        Raises CandidateError when this recipe cannot be, SourceError when a folder cannot be used, BackendError when
        torch failed or the backend is closed.
        """
        async with self._slot:
            if self._closed:
                raise BackendError("the backend is closed, so it can hold nothing")
            weights = as_weights(recipe)
            work = Work(self._thread)
            try:
                await work.run(lambda running: self._engine().place(weights, running))
                yield LocalModel(self._engine(), work)
            finally:
                try:
                    await work.stop()
                finally:
                    self._engine().release()

    async def close(self) -> None:
        """Free the model, once nobody holds it. Calling it twice is harmless."""
        async with self._slot:
            self._closed = True
            self._thread.shutdown()
            self._made = None

    def _engine(self) -> "Engine":
        """Return what does the work. The first call imports torch and transformers, which takes seconds."""
        with self._making:
            if self._made is None:
                from evomerge.backends.local.engine import Engine

                self._made = Engine(self._settings, self._store)
            return self._made


class LocalModel:
    """The recipe that is held, until `hold` is left."""

    def __init__(self, engine: "Engine", work: Work) -> None:
        self._engine, self._work = engine, work

    def answer(self, requests: Sequence[Request]) -> AsyncIterator[tuple[int, Answer]]:
        """Answer one batch; yields (index into `requests`, answer) as answers come, each index once.

        Raises CandidateError when the recipe's model gives no numbers, BackendError when torch failed, and ConfigError
        for messages where the tokenizer has no chat template.
        """
        asked = tuple(requests)
        return self._work.stream(lambda emit, running: self._engine.answer(asked, emit, running))
