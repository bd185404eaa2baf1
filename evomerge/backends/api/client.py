"""A client of one endpoint: requests in, answers or failures out, with one owner of all retries.

Only what may be answered later is asked again, with full jitter or when the server says; what is never answered is
missing, not wrong. An endpoint that wants no more (a wrong key, an empty account, nobody there time after time) is left
alone with a sentence for a person. The key is in no sentence, even where the server repeats it.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from evomerge.backends.api import chat
from evomerge.backends.api.faults import Barred, Fault, Malformed, Misplaced, Refused, Transient, fault_of
from evomerge.backends.api.http import Door
from evomerge.backends.api.settings import EndpointSettings
from evomerge.errors import ConfigError, EndpointPaused
from evomerge.exchange import Answer, Failure, Generate

MALFORMED_ATTEMPTS = 3
"""How often a request is asked in all while its answers cannot be read."""
IN_A_ROW = 5
"""After so many requests without an answer, none in between, an endpoint is taken to be down or to refuse all."""


@dataclass(frozen=True)
class Pace:
    """How often a request is asked, and how long is waited between: up to `first` seconds, then twice that, and so on.

    Full jitter: the wait is drawn evenly from zero to the bound. Clock, sleep and dice are given by tests.
    """

    attempts: int = 6
    first: float = 0.5
    most: float = 30.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    now: Callable[[], float] = time.time
    dice: random.Random = field(default_factory=random.Random)

    def wait(self, attempt: int, fault: Transient) -> float:
        """Return the seconds to wait after an attempt, counted from 1."""
        if fault.retry_after is not None:
            return fault.retry_after
        return self.dice.uniform(0.0, min(self.most, self.first * 2 ** (attempt - 1)))


class Client:
    """Asks one endpoint, never more than `max_in_flight` requests at the same time."""

    def __init__(self, name: str, settings: EndpointSettings, key: str | None, pace: Pace) -> None:
        self._name, self._settings, self._key, self._pace = name, settings, key, pace
        self._slots = asyncio.Semaphore(settings.max_in_flight)
        self._door = Door(settings.max_in_flight, settings.timeout)
        self._answered = False
        self._in_a_row = 0

    async def ask(self, request: Generate) -> Answer:
        """Return the answer, or one that says why there is none.

        Raises EndpointPaused where the endpoint is to be left alone, ConfigError where the job is wrong about it.
        """
        async with self._slots:
            try:
                answer = await self._persist(request)
            except Misplaced as fault:
                raise ConfigError(
                    self._sentence(fault, "check url and model, of which the url ends before /chat/completions")
                ) from None
            except Barred as fault:
                raise EndpointPaused(self._sentence(fault, self._about_key())) from None
            except Fault as fault:
                return self._missing(fault)
            self._answered, self._in_a_row = True, 0
            return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._door.close()

    async def _persist(self, request: Generate) -> Answer:
        """Ask until there is an answer, or no sense in asking again. Raises the last Fault."""
        from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

        def fault(state: RetryCallState) -> Transient:
            error = state.outcome.exception() if state.outcome else None
            if not isinstance(error, Transient):
                raise TypeError("only transient faults are waited for")
            return error

        def is_last(state: RetryCallState) -> bool:
            malformed = isinstance(fault(state), Malformed)
            return state.attempt_number >= (MALFORMED_ATTEMPTS if malformed else self._pace.attempts)

        retrying = AsyncRetrying(
            sleep=self._pace.sleep,
            retry=retry_if_exception_type(Transient),
            stop=is_last,
            wait=lambda state: self._pace.wait(state.attempt_number, fault(state)),
            reraise=True,
        )
        return await retrying(self._once, request)

    async def _once(self, request: Generate) -> Answer:
        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        body = chat.body_of(self._settings.model, request, self._settings.request)
        reply = await self._door.post(self._settings.url + chat.PATH, headers, body)
        if reply.status == 200:
            return chat.answer_of(reply.body)
        raise fault_of(reply.status, reply.headers, chat.complaint_of(reply.body), self._pace.now())

    def _missing(self, fault: Fault) -> Answer:
        """Return the failure, unless it is one of many and asking on would be in vain."""
        self._in_a_row += 1
        if self._in_a_row >= IN_A_ROW:
            if isinstance(fault, Refused) and not self._answered:
                raise ConfigError(
                    self._sentence(
                        fault,
                        "it refuses every request of this job; keys of them can be changed or left out with request:",
                    )
                )
            if isinstance(fault, Transient):
                raise EndpointPaused(
                    self._sentence(fault, f"{self._in_a_row} requests in a row had no answer; start again later")
                )
        kind = "refused" if isinstance(fault, Refused) else "unanswered"
        return Answer(failure=Failure(kind, self._sentence(fault)))

    def _sentence(self, fault: Fault, hint: str = "") -> str:
        said = f"endpoint '{self._name}' ({self._settings.model} at {self._settings.host}): {fault}"
        said = said if self._key is None else said.replace(self._key, "…")
        return f"{said}; {hint}" if hint else said

    def _about_key(self) -> str:
        variable = self._settings.api_key_env
        if variable is None:
            return "it wants a key: name the environment variable that holds it with api_key_env"
        return f"see that {variable} holds a key with the right and the money for this model, then start again"
