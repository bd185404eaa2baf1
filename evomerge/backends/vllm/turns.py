"""Whose turn it is on one engine: several that share the base's weights, or one that changes them.

First come, first served: one that changes weights waits for those before it and holds up those behind it, so that
neither kind waits for ever.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Turns:
    """At most `slots` that share, or one alone. Used within one event loop."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._sharing = 0
        self._alone = False
        self._waiting: deque[tuple[asyncio.Future[None], bool]] = deque()

    @asynccontextmanager
    async def shared(self) -> AsyncGenerator[None]:
        """Hold one of the slots."""
        await self._turn(alone=False)
        try:
            yield
        finally:
            self._sharing -= 1
            self._call()

    @asynccontextmanager
    async def alone(self) -> AsyncGenerator[None]:
        """Hold everything."""
        await self._turn(alone=True)
        try:
            yield
        finally:
            self._alone = False
            self._call()

    async def _turn(self, *, alone: bool) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, alone))
        self._call()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled() or not turn.done():
                self._waiting = deque(entry for entry in self._waiting if entry[0] is not turn)
            else:  # it was called and cancelled at the same time
                self._give_up(alone=alone)
            self._call()
            raise

    def _give_up(self, *, alone: bool) -> None:
        if alone:
            self._alone = False
        else:
            self._sharing -= 1

    def _call(self) -> None:
        """Let begin who stands first and may, and those behind as far as they may as well."""
        while self._waiting and not self._alone:
            turn, alone = self._waiting[0]
            if self._sharing >= (1 if alone else self._slots):
                return
            self._waiting.popleft()
            if turn.cancelled():
                continue
            if alone:
                self._alone = True
            else:
                self._sharing += 1
            turn.set_result(None)
