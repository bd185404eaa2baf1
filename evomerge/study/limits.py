"""Budgets and stopping: what the loop asks before it starts anything.

`Stop` is pressed by a signal (or a caller); `Limits` says whether another trial may be started. Nothing here decides
what happens then.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import Field

from evomerge.backends.api.money import Part
from evomerge.recipe.settings import Settings


class BudgetSettings(Settings):
    """How much a study may use. What is left out is not limited; the number of trials is set under `search`."""

    hours: float | None = Field(default=None, gt=0)
    """Hours of work, over all starts of the study. The search ends early enough for selection and test."""
    usd: float | None = Field(default=None, gt=0)
    """Money that endpoints may cost, in USD, over all starts of the study. No request is sent that could pass it, and
    the search ends early enough for selection and test."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens that endpoints may read and write together, over all starts of the study; otherwise as `usd`."""


@dataclass
class Stop:
    """A wish to stop, which the loop honours as soon as nothing is lost by it."""

    reason: str | None = None
    _event: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def request(self, reason: str) -> None:
        """Ask to stop; the first reason is kept."""
        self.reason = self.reason or reason
        self._event.set()

    async def wait(self) -> None:
        """Return when somebody asked to stop."""
        await self._event.wait()


@contextmanager
def stopped_by_signals(stop: Stop, before_exit: Callable[[], None] = lambda: None) -> Generator[None]:
    """Let SIGINT and SIGTERM ask to stop; a second signal ends the process at once (the journal stays whole).

    `before_exit` is called before that, to leave a terminal as it was.
    """
    loop = asyncio.get_running_loop()

    def handle(number: signal.Signals) -> None:
        if stop.reason is not None:
            before_exit()
            os._exit(128 + number)
        stop.request("interrupted" if number is signal.SIGINT else "asked to stop")

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@dataclass
class Limits:
    """What a search may use: `trials` proposals, and `hours` in all, of which `reserve()` seconds are kept for what
    follows; `unpaid()` says which of `usd` and `tokens` does not cover a further trial.

    `used` are the seconds that earlier starts of the study took.
    """

    trials: int
    hours: float | None = None
    used: float = 0.0
    reserve: Callable[[], float] = lambda: 0.0
    usd: float | None = None
    tokens: int | None = None
    unpaid: Callable[[], Part | None] = lambda: None
    clock: Callable[[], float] = time.monotonic
    _start: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._start = self.clock()

    @property
    def elapsed(self) -> float:
        """Seconds of work so far, over all starts of the study."""
        return self.used + self.clock() - self._start

    @property
    def budget(self) -> dict[str, float | None]:
        """The budget as it is journalled with the decision to end."""
        return {"trials": self.trials, "hours": self.hours, "usd": self.usd, "tokens": self.tokens}

    def more_than(self, reason: str, before: Mapping[str, float | None]) -> bool:
        """Return whether the budget that once ended the search has been raised since."""
        then, now = before.get(reason), self.budget.get(reason)
        return then is not None and (now is None or now > then)

    def end_of_search(self, asked: int) -> str | None:
        """Return why no further trial may be started after `asked` of them, or None when one may."""
        if asked >= self.trials:
            return "trials"
        if self.hours is not None and self.elapsed + self.reserve() >= self.hours * 3600:
            return "hours"
        return self.unpaid()
