"""The line to one service: JSON there and back, no faster than agreed, asked again where that may help.

Requests for answers keep to the rate and the limit in flight; what a service tells of itself is asked beside them. A
key is in no sentence, even where the service repeats it.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from typing import Any, TypeVar, cast

from evomerge.backends.api.pace import MALFORMED_ATTEMPTS, Pace
from evomerge.backends.api.faults import Barred, Fault, Malformed, Refused, Transient, fault_of
from evomerge.backends.api.http import Door, Reply
from evomerge.backends.services.asked import mapped
from evomerge.backends.services.settings import ServiceSettings

R = TypeVar("R")
_SHOWN = 300
_NO_OBJECT = "its answer is no JSON object"
_NOT_NOW = frozenset({429, 503})


class Rate:
    """Lets one begin every so many seconds, evenly; those who wait do so in their order."""

    def __init__(self, per_minute: float | None, pace: Pace, clock: Callable[[], float] = time.monotonic) -> None:
        self._gap = 0.0 if per_minute is None else 60.0 / per_minute
        self._pace, self._clock = pace, clock
        self._next = 0.0

    async def turn(self) -> None:
        """Return when the next may begin."""
        if not self._gap:
            return
        now = self._clock()
        begin = max(self._next, now)
        self._next = begin + self._gap
        if begin > now:
            await self._pace.sleep(begin - now)


class Line:
    """Connections to a service. Made anywhere, used within one event loop."""

    def __init__(self, settings: ServiceSettings, key: str | None, pace: Pace) -> None:
        self._settings, self._key, self._pace = settings, key, pace
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._rate = Rate(settings.requests_per_minute, pace)
        self._slots = asyncio.Semaphore(settings.max_in_flight)
        self._door: Door | None = None

    async def tell(self, path: str) -> Any:
        """Return what the service tells at a path, parsed. Raises Fault."""
        return await self._persist("GET", path, None, _as_it_is)

    async def ask(
        self, path: str, body: Mapping[str, Any], read: Callable[[Mapping[str, Any]], R], *, attempts: int | None = None
    ) -> R:
        """Return what `read` makes of the reply to a request for an answer. Raises the last Fault.

        A reply that `read` finds malformed is asked for again.
        """
        return await self._persist("POST", path, body, lambda found: read(mapped(found, _NO_OBJECT)), attempts)

    async def order(self, path: str, body: Mapping[str, Any]) -> None:
        """Have the service do something. Raises Refused where it does not, Barred, Transient where nobody answers."""
        reply = await self._sent("POST", path, body)
        if reply.status != 200:
            fault = self._fault(reply)
            raise Refused(str(fault)) if reply.status not in _NOT_NOW and not isinstance(fault, Barred) else fault

    async def status(self, path: str, body: Mapping[str, Any]) -> int:
        """Return how the service answers a request. Raises Transient where nobody does."""
        return (await self._sent("POST", path, body)).status

    async def close(self) -> None:
        """Close the connections. Calling it twice is harmless."""
        door, self._door = self._door, None
        if door is not None:
            await door.close()

    def hidden(self, sentence: str) -> str:
        """Return a sentence without the key."""
        return sentence if self._key is None else sentence.replace(self._key, "…")

    async def _persist(
        self, method: str, path: str, body: Any, read: Callable[[Any], R], attempts: int | None = None
    ) -> R:
        """Ask until there is a reply that can be read, or no sense in asking again; posts keep to rate and limit."""
        pace = self._pace if attempts is None else replace(self._pace, attempts=attempts)
        for attempt in count(1):
            try:
                async with self._slots if method == "POST" else nullcontext():
                    if method == "POST":
                        await self._rate.turn()
                    reply = await self._sent(method, path, body)
                if reply.status != 200:
                    raise self._fault(reply)
                return read(_parsed(reply.body))
            except Transient as fault:
                most = min(MALFORMED_ATTEMPTS, pace.attempts) if isinstance(fault, Malformed) else pace.attempts
                if attempt >= most:
                    raise
                await pace.sleep(pace.wait(attempt, fault))
        raise AssertionError("unreachable")

    async def _sent(self, method: str, path: str, body: Any) -> Reply:
        if self._door is None:
            self._door = Door(self._settings.max_in_flight + 1, self._settings.timeout)
        url = self._settings.url + path
        if method == "GET":
            return await self._door.get(url, self._headers)
        return await self._door.post(url, self._headers, body)

    def _fault(self, reply: Reply) -> Fault:
        return fault_of(reply.status, reply.headers, self.hidden(complaint(reply.body)), self._pace.now())


def complaint(body: bytes) -> str:
    """Return what a service says about an error, on one line and not too long."""
    try:
        said: Any = json.loads(body)
    except ValueError:
        return ""
    for key in ("error", "message", "detail"):
        if isinstance(said, dict) and key in said:
            said = cast("dict[str, Any]", said)[key]
    return " ".join(str(said or "").split())[:_SHOWN]


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise Malformed("its answer is not JSON, or cut off") from None


def _as_it_is(found: Any) -> Any:
    return found
