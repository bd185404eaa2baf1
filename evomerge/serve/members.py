"""One member of an ensemble that is served: it is asked, or left alone for a while when it does not answer.

Who waits for an answer should not wait, question after question, for somebody who is down: after `FAILURES` questions
in a row without an answer a member rests, and counts as missing at once. When the rest is over one question tries it,
with connections of its own, while the others still go without.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from evomerge.backends.protocol import Backend
from evomerge.errors import ConfigError, EndpointPaused, EvomergeError
from evomerge.exchange import Answer, Failure, Request
from evomerge.recipe.tree import Recipe

FAILURES = 3
REST = 30.0
"""Seconds."""

RESTING, LATE = "resting", "deadline"
_FOR_A_PERSON = (ConfigError, EndpointPaused)
"""Errors after which asking again is in vain until a person, or much time, has changed something."""


class Member:
    """Asks a member under its `name`. `make` gives a backend that holds its recipe; `tell` hears when it rests."""

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        make: Callable[[], Backend],
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._recipe, self._make, self._tell, self._clock = recipe, make, tell, clock
        self._line: _Line | None = None
        self._failures = 0
        self._rests_until: float | None = None
        self._tried = False

    async def ask(self, request: Request, left: Callable[[], float]) -> Answer:
        """Return the answer, or one that says why there is none; `left` tells the seconds in which it must come."""
        if self._rests_until is not None and (self._tried or self._clock() < self._rests_until):
            return _missing(RESTING, f"{self.name} did not answer before, and is left alone for a while")
        self._tried = self._rests_until is not None
        try:
            answer = await self._asked(request, left())
        except BaseException:
            self._tried = False
            raise
        await self._learn(answer.failure)
        return answer

    async def close(self) -> None:
        """Close the connections, as soon as nobody is asked over them."""
        line, self._line = self._line, None
        if line is not None and not line.users:
            await line.backend.close()

    async def _asked(self, request: Request, seconds: float) -> Answer:
        line = self._line = self._line or _Line(self._make())
        line.users += 1
        try:
            async with asyncio.timeout(max(seconds, 0.0)), line.backend.hold(self._recipe) as model:
                (answer,) = [answer async for _, answer in model.answer([request])]
                return answer
        except TimeoutError:
            return _missing(LATE, f"{self.name} gave no answer in time")
        except _FOR_A_PERSON as error:
            self._failures = FAILURES
            return _missing("paused", str(error))
        except EvomergeError as error:
            return _missing("unanswered", str(error))
        finally:
            line.users -= 1
            if line is not self._line and not line.users:
                await line.backend.close()

    async def _learn(self, failure: Failure | None) -> None:
        """Count failures in a row, and begin or end a rest. A refused question says nothing about the next."""
        self._tried = False
        if failure is None or failure.kind == "refused":
            if self._rests_until is not None:
                self._tell(f"{self.name} answers again")
            self._failures, self._rests_until = 0, None
            return
        self._failures += 1
        if self._failures >= FAILURES:
            again = "still " if self._rests_until is not None else ""
            self._rests_until = self._clock() + REST
            self._tell(f"{self.name} is {again}left alone for {REST:g} seconds: {failure.message}")
            await self.close()


@dataclass
class _Line:
    """A backend, and how many questions are under way with it."""

    backend: Backend
    users: int = 0


def _missing(kind: str, message: str) -> Answer:
    return Answer(failure=Failure(kind, message))
