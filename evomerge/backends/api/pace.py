"""How patiently an endpoint is asked: how often, how long is waited between, and by which clock."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from evomerge.backends.api.faults import Away, Malformed, Transient

MALFORMED_ATTEMPTS = 3
"""How often a request is asked in all while its answers cannot be read."""
PATIENT_FACTOR = 5
"""So many times as often a request is asked whose endpoint names a time to wait, or is away and was there before."""


@dataclass(frozen=True)
class Pace:
    """How often a request is asked, and how long is waited between: up to `first` seconds, then twice that, and so on.

    Full jitter: the wait is drawn evenly from zero to the bound. Clocks, sleep and dice are given by tests: `now` is a
    time in seconds since 1970, `clock` one that never goes back.
    """

    attempts: int = 6
    first: float = 0.5
    most: float = 30.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    now: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic
    dice: random.Random = field(default_factory=random.Random)

    def wait(self, attempt: int, fault: Transient) -> float:
        """Return the seconds to wait after an attempt, counted from 1."""
        if fault.retry_after is not None:
            return fault.retry_after
        return self.dice.uniform(0.0, min(self.most, self.first * 2 ** (attempt - 1)))


class Patience:
    """Counts the faults of one request, and says when it is not asked again. Each kind of fault has its own count."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._counts: Counter[int] = Counter()

    def ends_with(self, fault: Transient, known: bool) -> bool:
        """Count a fault, and return whether it is the last. `known` says whether the endpoint has ever answered."""
        most = self._most(fault, known)
        self._counts[most] += 1
        return self._counts[most] >= most

    def _most(self, fault: Transient, known: bool) -> int:
        if isinstance(fault, Malformed):
            return min(MALFORMED_ATTEMPTS, self._pace.attempts)
        patient = fault.retry_after is not None or (known and isinstance(fault, Away))
        return self._pace.attempts * (PATIENT_FACTOR if patient else 1)
