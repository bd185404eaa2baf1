"""A merging service as a backend: it holds a merge of the service's adapters, one after the other.

What the service tells is asked again for each recipe, so that no score is taken of another adapter than the one that
the study began with. Answers come at a rate that leaves room for others; what an earlier process left at the service is
taken back before anything is asked, and again at the end.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TypeVar

from evomerge.backends.api.client import IN_A_ROW, Pace
from evomerge.backends.api.faults import Barred, Fault, Misplaced, Refused
from evomerge.backends.in_flight import InFlight
from evomerge.backends.protocol import Placement, Unsupported
from evomerge.backends.services.dialect import Ask, Dialect
from evomerge.backends.services.line import Line
from evomerge.backends.services.offer import Offer, UnknownAdapter, known
from evomerge.backends.services.settings import ServiceSettings
from evomerge.errors import BackendError, CandidateError, ConfigError, EndpointPaused, StudyChanged
from evomerge.exchange import Answer, Failure, Request
from evomerge.recipe.served import ServedAdapter, ServedMerge
from evomerge.recipe.tree import Recipe

R = TypeVar("R")
Speaking = Callable[[Line], Dialect]


class ServiceBackend:
    """Holds merges of a service's adapters; keeps the promises of `backends.protocol.Backend`."""

    def __init__(self, settings: ServiceSettings, key: str | None, speaking: Speaking, pace: Pace | None = None) -> None:
        """`speaking` makes the service's dialect at the end of a line."""
        self._settings, self._key, self._speaking = settings, key, speaking
        self._pace = pace or Pace()
        self._line = Line(settings, key, self._pace)
        self._dialect = speaking(self._line)
        self._turn = asyncio.Semaphore(1)
        self._told: Offer | None = None
        self._tried: dict[tuple[str, tuple[str, ...]], str | None] = {}
        self._cleared = self._answered = self._closed = False
        self._in_a_row = 0

    @property
    def slots(self) -> int:
        """One: a service that batches requests of two merges does so for its other users."""
        return 1

    @property
    def batch_size(self) -> int | None:
        """None: a round is sent as fast as the rate and the limit in flight allow."""
        return None

    def plan(self, recipe: Recipe) -> Placement | Unsupported:
        """Ask the service what it holds, once, and say how it makes the merge or why it cannot."""
        if not isinstance(recipe, ServedMerge):
            return Unsupported("a service merges adapters that it holds: write models as {adapter: its id there}")
        try:
            offer, refused = self._apart(lambda line: self._tried_out(line, recipe))
        except (BackendError, EndpointPaused, ConfigError) as error:
            return Unsupported(str(error))
        title, settings = self._dialect.title, self._settings
        if refused is not None:
            return Unsupported(refused)
        rate = "" if settings.requests_per_minute is None else f"{settings.requests_per_minute:g} requests a minute and "
        words = f"{self._dialect.manner(recipe)}, by {title} at {settings.host} on {offer.base}; {offer.listed}"
        return Placement(f"{words}; at most {rate}{settings.max_in_flight} at a time", 0, offer.dtype)

    def known(self, recipe: ServedMerge) -> ServedMerge:
        """Return a recipe, with holes or without, with the fingerprints that the service's word gives it.

        Raises UnknownAdapter for an adapter that it does not hold, and BackendError, EndpointPaused or ConfigError
        where it does not tell.
        """
        return known(recipe, self._apart(self._offered))

    @asynccontextmanager
    async def hold(self, recipe: Recipe) -> AsyncGenerator["ServiceModel"]:
        """Hold a merge, once it is its turn.

        Raises CandidateError for one that the service cannot make, StudyChanged where the service holds other adapters
        than before, and BackendError, EndpointPaused or ConfigError as the service fails.
        """
        if not isinstance(recipe, ServedMerge):
            raise CandidateError("only adapters that the service holds can be merged by it")
        async with self._turn:
            if self._closed:
                raise BackendError("the backend is closed, so it can hold nothing")
            await self._clear()
            offer = await self._checked(recipe)
            refused = self._dialect.refusal(recipe, offer)
            if refused is not None:
                raise CandidateError(refused)
            try:
                async with self._dialect.hold(recipe, offer) as ask:
                    model = ServiceModel(self._guarded(ask), self._settings.max_in_flight)
                    try:
                        yield model
                    finally:
                        await model.stop()
            except Fault as fault:
                raise self._error(fault) from None

    async def close(self) -> None:
        """Take back what is left at the service, and close the connections. Calling it twice is harmless."""
        async with self._turn:
            if not self._closed:
                self._closed = True
                with suppress(Fault):
                    await self._dialect.clear()
            await self._line.close()

    async def _clear(self) -> None:
        if not self._cleared:
            try:
                await self._dialect.clear()
            except Fault as fault:
                raise self._error(fault) from None
            self._cleared = True

    async def _checked(self, recipe: ServedMerge) -> Offer:
        """Return what the service tells now, which has to be what the recipe was made for."""
        try:
            offer = await self._dialect.offer()
        except Fault as fault:
            raise self._error(fault) from None
        bare = replace(
            recipe, inputs=tuple(replace(item, adapter=ServedAdapter(item.adapter.id)) for item in recipe.inputs)
        )
        try:
            now = known(bare, offer)
        except UnknownAdapter as unknown:
            raise CandidateError(self._sentence(str(unknown))) from None
        if recipe.service and recipe != now:
            raise StudyChanged(
                self._sentence(
                    "it now serves another model, or other adapters under these ids, than when the study was started; "
                    "bring them back, or start a new study with --study"
                )
            )
        return offer

    def _guarded(self, ask: Ask) -> Ask:
        """Return a way to ask that turns what goes wrong into failures, or into an error where asking on is in vain."""

        async def guarded(request: Request) -> Answer:
            try:
                answer = await ask(request)
            except Fault as fault:
                return self._missing(fault)
            self._answered, self._in_a_row = True, 0
            return answer

        return guarded

    def _missing(self, fault: Fault) -> Answer:
        self._in_a_row += 1
        if isinstance(fault, Barred | Misplaced):
            raise self._error(fault)
        if self._in_a_row >= IN_A_ROW and not (isinstance(fault, Refused) and self._answered):
            raise self._error(fault)
        kind = "refused" if isinstance(fault, Refused) else "unanswered"
        return Answer(failure=Failure(kind, self._sentence(str(fault))))

    def _error(self, fault: Fault) -> Exception:
        """Return what a fault means for a study."""
        match fault:
            case Barred():
                return EndpointPaused(self._sentence(f"{fault}; {self._about_key()}"))
            case Misplaced():
                return ConfigError(self._sentence(f"{fault}; check backend.url and backend.dialect"))
            case Refused():
                return ConfigError(self._sentence(f"{fault}; it refuses what this job asks"))
            case _:
                return EndpointPaused(self._sentence(f"{fault}; start again when it answers"))

    def _about_key(self) -> str:
        if self._settings.api_key_env is None:
            return "it wants a key: name the environment variable that holds it with backend.api_key_env"
        return f"see that {self._settings.api_key_env} holds its key, then start again"

    def _sentence(self, said: str) -> str:
        return self._line.hidden(f"{self._dialect.title} at {self._settings.host}: {said}")

    async def _offered(self, line: Line) -> Offer:
        if self._told is None:
            try:
                self._told = await self._speaking(line).offer()
            except Fault as fault:
                raise self._error(fault) from None
        return self._told

    async def _tried_out(self, line: Line, recipe: ServedMerge) -> tuple[Offer, str | None]:
        """Return what the service tells, and why it cannot make a merge; a kind of merge is tried once."""
        offer, dialect = await self._offered(line), self._speaking(line)
        try:
            known(recipe, offer)
        except UnknownAdapter as unknown:
            return offer, self._sentence(str(unknown))
        refused = await asyncio.to_thread(dialect.refusal, recipe, offer)
        if refused is not None:
            return offer, refused
        kind = recipe.method, recipe.ids
        if kind not in self._tried:
            try:
                self._tried[kind] = await dialect.trial(recipe, offer)
            except Fault as fault:
                raise self._error(fault) from None
        return offer, self._tried[kind]

    def _apart(self, work: Callable[[Line], Awaitable[R]]) -> R:
        """Do some work with a line of its own, in a loop of its own: plans are made within event loops as well."""

        async def done() -> R:
            line = Line(self._settings, self._key, replace(self._pace, attempts=min(self._pace.attempts, 2)))
            try:
                return await work(line)
            finally:
                await line.close()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: asyncio.run(done())).result()


class ServiceModel:
    """A merge that can be asked, until `hold` is left."""

    def __init__(self, ask: Ask, width: int) -> None:
        self._under_way = InFlight(ask, width)

    def answer(self, requests: Sequence[Request]) -> AsyncIterator[tuple[int, Answer]]:
        """Answer the requests; yields (index, answer) as answers come.

        Raises ConfigError for what the service never answers, EndpointPaused where it wants to be left alone, and
        BackendError where it lost the merge.
        """
        return self._under_way.answers(requests)

    async def stop(self) -> None:
        """Cancel whatever is still asked."""
        await self._under_way.stop()
