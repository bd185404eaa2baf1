"""The breaker of one endpoint: where attempt after attempt has no answer, it is left alone for a while.

It is closed while all is well. After `FAILURES` attempts without an answer in a row, or when the server names a time to
come back, it opens: nothing is sent. When the time is over one attempt goes first, and only if it is answered do the
others follow; else the pause doubles. Other endpoints have breakers of their own, and go on.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from evomerge.backends.api.faults import Down, Fault, Transient
from evomerge.backends.api.pace import PATIENT_FACTOR, Pace

FAILURES = 10
"""Attempts without an answer in a row, of all requests together, that open the breaker."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0


class Breaker:
    """Lets attempts through, as long as that makes sense."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._turn = asyncio.Lock()
        self._open_until: float | None = None
        self._in_a_row = 0
        self._probes = 0
        self._last: Transient | None = None
        self.known = False
        """Whether there ever was an answer; a refusal is one."""

    @asynccontextmanager
    async def attempt(self) -> AsyncGenerator[None]:
        """Wait until an attempt makes sense, and learn from the one that is made inside.

        Raises Down where pause after pause was in vain: sooner where the endpoint never answered, for then it is likely
        not there at all, and later where it names the time to come back. After each further pause one is let through.
        """
        probe = await self._enter()
        try:
            yield
        except Transient as fault:
            self._failed(fault, probe)
            raise
        except Fault:
            self._answered(probe)
            raise
        else:
            self._answered(probe)
        finally:
            if probe:
                self._turn.release()

    async def _enter(self) -> bool:
        """Return whether the attempt is the one that goes first after a pause; then it holds the turn."""
        if self._open_until is None:
            return False
        await self._turn.acquire()
        try:
            if self._open_until is None:  # whoever went first was answered
                probe = False
            else:
                left = self._open_until - self._pace.clock()
                self._give_up_after_all(left)
                if left > 0:
                    await self._pace.sleep(left)
                probe = True
        except BaseException:
            self._turn.release()
            raise
        if not probe:
            self._turn.release()
        return probe

    def _give_up_after_all(self, left: float) -> None:
        """Raise Down for a pause that is one too many."""
        if left > 0 and self._last is not None and self._probes >= self._patience(self._last):
            raise Down(f"{self._last}; that was {self._in_a_row} attempts in a row without an answer", free=True)

    def _patience(self, fault: Transient) -> int:
        """Return how many attempts after pauses may fail in a row before the endpoint is given up."""
        attempts = self._pace.attempts
        if fault.retry_after is not None:
            return attempts * PATIENT_FACTOR
        return attempts + 2 if self.known else max(1, attempts // 2)

    def _failed(self, fault: Transient, probe: bool) -> None:
        self._in_a_row += 1
        self._last = fault
        self._probes += probe
        pause = fault.retry_after
        if pause is None and probe:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._probes)
        elif pause is None and self._in_a_row >= FAILURES and self._open_until is None:
            pause = FIRST_PAUSE
        if pause is not None:
            self._open_until = max(self._open_until or 0.0, self._pace.clock() + pause)

    def _answered(self, probe: bool) -> None:
        """Close, unless the answer is of an attempt that was made before the breaker opened."""
        self.known = True
        if probe or self._open_until is None:
            self._open_until, self._in_a_row, self._probes = None, 0, 0
