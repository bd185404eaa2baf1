"""The rate that an endpoint is asked at: so many requests and so many tokens a minute.

Both are token buckets: what comes back evenly over the minute may be taken at once as far as it has gathered. Whoever
has to wait waits in turn. The clock is given.
"""

import asyncio

from evomerge.backends.api.pace import Pace

REQUESTS_GATHER = 1.0
"""Seconds for which unused requests gather: some providers enforce a rate by the second."""
TOKENS_GATHER = 10.0
"""Seconds for which unused tokens gather."""
_LONGEST_NAP = 1.0


class Bucket:
    """Fills with `per_minute`, evenly, and holds what comes in `gather` seconds, though never less than one."""

    def __init__(self, per_minute: float, gather: float, pace: Pace) -> None:
        self._rate = per_minute / 60.0
        self._room = max(1.0, self._rate * gather)
        self._level, self._filled = self._room, pace.clock()
        self._pace = pace
        self._turn = asyncio.Lock()

    async def take(self, amount: float) -> None:
        """Take an amount when it is there; one that is more than there is room for leaves a debt to be filled first."""
        async with self._turn:
            while (short := min(amount, self._room) - self._now()) > 1e-9:
                await self._pace.sleep(min(short / self._rate, _LONGEST_NAP))
            self._level -= amount

    def give_back(self, amount: float) -> None:
        """Put back what was taken and not used; a negative amount is used in addition."""
        self._level = min(self._room, self._now() + amount)

    def _now(self) -> float:
        """Return what is there now."""
        now = self._pace.clock()
        self._level = min(self._room, self._level + (now - self._filled) * self._rate)
        self._filled = now
        return self._level


class Limits:
    """The rates of one endpoint; None is no limit."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None, pace: Pace) -> None:
        self._requests = (
            None if requests_per_minute is None else Bucket(requests_per_minute, REQUESTS_GATHER, pace)
        )
        self._tokens = None if tokens_per_minute is None else Bucket(tokens_per_minute, TOKENS_GATHER, pace)

    async def take(self, tokens: int) -> None:
        """Return when a request of at most so many tokens may be sent."""
        if self._tokens is not None:
            await self._tokens.take(tokens)
        if self._requests is not None:
            await self._requests.take(1)

    def correct(self, most: int, taken: int) -> None:
        """Say that a request that was counted with `most` tokens took so many."""
        if self._tokens is not None:
            self._tokens.give_back(most - taken)
