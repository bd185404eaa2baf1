"""A client of one endpoint: requests in, answers or failures out, with one owner of all retries.

Only what may be answered later is asked again, with full jitter or when the server says; what is never answered is
missing, not wrong. Whatever is sent keeps to the endpoint's rates, and what it may cost is set aside before and settled
after, each attempt by itself. An endpoint that wants no more (a wrong key, an empty account, nobody there time after
time) is left alone with a sentence for a person. The key is in no sentence, even where the server repeats it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evomerge.backends.api.breaker import Breaker
from evomerge.backends.api.dialects.reading import SHOWN, mapping, parsed
from evomerge.backends.api.dialects.registry import get
from evomerge.backends.api.faults import (
    MOST_SECONDS,
    Barred,
    Down,
    Fault,
    Malformed,
    Misplaced,
    Refused,
    Transient,
    fault_of,
)
from evomerge.backends.api.hooks import Answers, NoAnswers, NoPurse, Purse
from evomerge.backends.api.http import Door, Reply
from evomerge.backends.api.limits import Limits
from evomerge.backends.api.pace import Pace, Patience
from evomerge.backends.api.prices import tokens_at_most, usd_of, usd_of_usage
from evomerge.backends.api.settings import EndpointSettings
from evomerge.errors import ConfigError, EndpointPaused
from evomerge.exchange import Answer, Failure, Request, Usage

IN_A_ROW = 5
"""After so many refused requests, and none answered before, an endpoint is taken to refuse all."""


class Client:
    """Asks one endpoint, never more than `max_in_flight` requests at the same time.

    What `answers` knows is not asked, and what is asked is paid from `purse`.
    """

    def __init__(
        self,
        name: str,
        settings: EndpointSettings,
        key: str | None,
        pace: Pace,
        answers: Answers | None = None,
        purse: Purse | None = None,
    ) -> None:
        self._name, self._settings, self._key, self._pace = name, settings, _Key(key), pace
        self._answers, self._purse = answers or NoAnswers(), purse or NoPurse()
        self._fingerprint = settings.fingerprint
        self._dialect = get(settings.dialect)
        self._address = settings.url + self._dialect.path
        self._slots = asyncio.Semaphore(settings.max_in_flight)
        self._door = Door(settings.max_in_flight, settings.timeout, self._dialect.headers(key))
        self._limits = Limits(settings.requests_per_minute, settings.tokens_per_minute, pace)
        self._breaker = Breaker(pace)
        self._paused, self._paused_until = "", 0.0
        self._answered = False
        self._refused = 0

    async def ask(self, request: Request) -> Answer:
        """Return the answer, or one that says why there is none.

        Raises EndpointPaused where the endpoint is to be left alone, ConfigError where the job is wrong about it, and
        BudgetSpent where the purse covers no further attempt.
        """
        known = self._answers.get(self._fingerprint, request)
        if known is not None:
            return known
        async with self._slots:
            try:
                answer = await self._persist(request)
            except Misplaced as fault:
                hint = f"check url and model, of which the url ends before {self._dialect.path}"
                raise ConfigError(self._sentence(fault, hint)) from None
            except Barred as fault:
                self._paused = self._sentence(fault, self._about_key())
                self._paused_until = self._pace.clock() + MOST_SECONDS
                raise EndpointPaused(self._paused) from None
            except Down as fault:
                raise EndpointPaused(self._sentence(fault, "start again later")) from None
            except Fault as fault:
                return self._missing(fault)
        if answer.failure is None:
            self._answered, self._refused = True, 0
            self._answers.put(self._fingerprint, request, answer)
        return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._door.close()

    async def _persist(self, request: Request) -> Answer:
        """Ask until there is an answer, or no sense in asking again. Raises the last Fault."""
        from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

        def fault(state: RetryCallState) -> Transient:
            error = state.outcome.exception() if state.outcome else None
            if not isinstance(error, Transient):
                raise TypeError("only transient faults are waited for")
            return error

        patience = Patience(self._pace)
        retrying = AsyncRetrying(
            sleep=self._pace.sleep,
            retry=retry_if_exception_type(Transient),
            stop=lambda state: patience.ends_with(fault(state), self._breaker.known),
            wait=lambda state: self._pace.wait(state.attempt_number, fault(state)),
            reraise=True,
        )
        body = self._dialect.body(self._settings, request)
        return await retrying(self._attempt, request, body, tokens_at_most(self._settings, request))

    async def _attempt(self, request: Request, body: Mapping[str, Any], most: tuple[int, int]) -> Answer:
        """Send a request once, when breaker, rates and purse let it. Raises Fault."""
        async with self._breaker.attempt():
            if self._paused and self._pace.clock() < self._paused_until:
                raise EndpointPaused(self._paused)
            await self._limits.take(sum(most))
            ticket = await self._purse.reserve(self._fingerprint, most, usd_of(self._settings, *most) or 0.0)
            usage, usd = None, None  # whatever comes between may have been billed
            try:
                answer = await self._sent(request, body)
                usage, usd = answer.usage, usd_of_usage(self._settings, answer.usage) or 0.0
                return replace(answer, usd=usd)
            except Fault as fault:
                if fault.free:
                    usage, usd = Usage(), 0.0
                raise
            finally:
                self._purse.settle(ticket, usage, usd)
                if usage is not None:
                    self._limits.correct(sum(most), usage.prompt_tokens + usage.completion_tokens)

    async def _sent(self, request: Request, body: Mapping[str, Any]) -> Answer:
        begun = self._pace.clock()
        reply = await self._door.post(self._address, {}, body)
        if reply.status != 200:
            raise self._fault(reply)
        found = parsed(reply.body)
        if mapping(found.get("error")) and "choices" not in found:
            raise self._late_fault(found, reply)
        return replace(self._dialect.answer(self._settings, request, found), seconds=self._pace.clock() - begun)

    def _fault(self, reply: Reply) -> Fault:
        """Return what a refusal means."""
        try:
            said = self._dialect.complaint(parsed(reply.body))
        except Malformed:
            said = ""
        return fault_of(reply.status, reply.headers, self._key.hidden(said)[:SHOWN], self._pace.now())

    def _late_fault(self, found: Mapping[str, Any], reply: Reply) -> Fault:
        """Return what an error means that a gateway found out too late to say so by the status."""
        status = mapping(found["error"]).get("code")
        said = self._key.hidden(self._dialect.complaint(found))[:SHOWN]
        if isinstance(status, int) and 400 <= status < 600:
            fault = fault_of(status, reply.headers, said, self._pace.now())
            fault.free = False
            return fault
        return Malformed(f"its answer is an error: {said}")

    def _missing(self, fault: Fault) -> Answer:
        """Return the failure, unless it is one of many and asking on would be in vain."""
        refused = isinstance(fault, Refused)
        self._refused += refused
        if self._refused >= IN_A_ROW and not self._answered:
            hint = "it refuses every request of this job; keys of them can be changed or left out with request:"
            raise ConfigError(self._sentence(fault, hint))
        return Answer(failure=Failure("refused" if refused else "unanswered", self._sentence(fault)))

    def _sentence(self, fault: Fault, hint: str = "") -> str:
        said = f"endpoint '{self._name}' ({self._settings.model} at {self._settings.host}): {fault}"
        said = self._key.hidden(said)
        return f"{said}; {hint}" if hint else said

    def _about_key(self) -> str:
        variable = self._settings.api_key_env
        if variable is None:
            return "it wants a key: name the environment variable that holds it with api_key_env"
        return f"see that {variable} holds a key with the right and the money for this model, then start again"


class _Key:
    """A key that is not shown, not even where a traceback shows what variables hold."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "_Key(…)"

    def hidden(self, text: str) -> str:
        """Return a text without the key."""
        return text if not self._key else text.replace(self._key, "…")
