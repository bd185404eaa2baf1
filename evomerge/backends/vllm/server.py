"""A vLLM server of our own: started when it is first needed, and again when it died.

Promised: callers that come together share one start; a server that is not well is ended, with all its processes, before
the next is started; whoever sees `starts` change knows that swapped weights and loaded adapters are gone. Which servers
there are, and what they are asked, is not decided here.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from evomerge.backends.vllm.installation import Installation, installed
from evomerge.backends.vllm.link import Link
from evomerge.backends.vllm.logs import Progress, reason
from evomerge.backends.vllm.process import (
    GRACE,
    Adapters,
    Address,
    Process,
    server_command,
    server_environment,
)
from evomerge.backends.vllm.settings import VllmSettings
from evomerge.errors import BackendError, ConfigError

__all__ = ["Adapters", "Server"]

PAUSES = (2.0, 10.0)
POLL = 0.2
CONTROLS = 8
"""Connections beyond those for requests: whoever asks how the server is does not wait behind a full queue."""


class Server:
    """One vLLM server over `model`, `number` from 0 among those of the settings; `tell` gets progress in words.

    It has room for `adapters`, and prints to the file `log`. `pauses` are the seconds before a second start and later
    ones, when the one before failed; `grace` the seconds that its processes have to end by themselves.
    """

    def __init__(
        self,
        settings: VllmSettings,
        python: Path,
        model: Path,
        *,
        name: str,
        log: Path,
        number: int,
        adapters: Adapters | None,
        tell: Callable[[str], None],
        pauses: Sequence[float] = PAUSES,
        grace: float = GRACE,
    ) -> None:
        self.starts = 0
        self._settings, self._python, self._model = settings, python, model
        self._name, self._log, self._number, self._adapters, self._tell = name, log, number, adapters, tell
        self._pauses, self._grace = pauses, grace
        self._installation: Installation | None = None
        self._process: Process | None = None
        self._link: Link | None = None
        self._was_well = False
        self._work: asyncio.Task[Link] | None = None

    @property
    def process(self) -> Process | None:
        """The processes of the latest start, if there was one."""
        return self._process

    async def ready(self) -> Link:
        """Return a link to the server, which is started first if it does not run or is not well.

        Raises ConfigError for what a person has to change (no vLLM, another evomerge, arguments that vLLM refuses) and
        BackendError where it ended in all its starts, and where it is stopped meanwhile.
        """
        if self._work is None:
            self._work = asyncio.create_task(self._brought_up())
            self._work.add_done_callback(self._over)
        work = self._work
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if work.cancelled() and not (task and task.cancelling()):
                raise BackendError(f"{self._name} was stopped while it started") from None
            raise

    async def stop(self) -> None:
        """End the server; when this returns no process of it is left. Harmless twice, and during a start."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])
        await self._end()

    def _over(self, work: asyncio.Task[Link]) -> None:
        self._work = None
        if not work.cancelled():
            work.exception()  # has been looked at, even if nobody waits any more

    async def _brought_up(self) -> Link:
        if self._link is not None and await self._is_well(self._link):
            return self._link
        if self._installation is None:
            self._installation = await installed(self._python)
        if self.starts:
            self._tell(f"{self._name}: it died, and is started again")
        for number, pause in enumerate((*self._pauses, None), start=1):
            await self._end()
            said = await self._started(self._installation)
            if self._link is not None:
                return self._link
            if pause is None:
                raise BackendError(f"{self._name} did not start in {number} attempts: {said} (see {self._log})")
            self._tell(f"{self._name}: {said}; the next start is in {pause:g} seconds")
            await asyncio.sleep(pause)
        raise AssertionError("there is a last attempt")

    async def _is_well(self, link: Link) -> bool:
        return self._process is not None and self._process.running and await link.healthy()

    async def _started(self, installation: Installation) -> str:
        """Start the server once and wait until it is well; return why it is not, in words for a person.

        Raises ConfigError where another start would end alike.
        """
        settings, address = self._settings, Address.new()
        if installation.cpu and settings.dtype == "auto":
            settings = settings.model_copy(update={"dtype": "float32"})
        command = server_command(
            settings, self._python, installation.module, self._model, address, adapters=self._adapters
        )
        environment = server_environment(settings, os.environ, address, number=self._number, cpu=installation.cpu)
        self._tell(f"{self._name}: starting vLLM {installation.version}, which prints to {self._log}")
        self._process = process = Process(command, environment, self._log, self._grace)
        self.starts += 1
        link = Link(address.url, address.key, settings.max_in_flight + CONTROLS)
        try:
            well = await self._until_well(process, link)
        except BaseException:
            await link.close()
            await process.end()
            raise
        if well:
            self._link, self._was_well = link, True
            return ""
        await link.close()
        why = reason(process.said(), await process.end())
        if why.permanent and not self._was_well:
            raise ConfigError(f"{self._name} cannot start: {why.sentence} (see {self._log})")
        return why.sentence

    async def _until_well(self, process: Process, link: Link) -> bool:
        loop = asyncio.get_running_loop()
        began, progress = loop.time(), Progress()
        while process.running:
            for word in progress.new(process.said()):
                self._tell(f"{self._name}: {word}")
            if await link.healthy():
                self._tell(f"{self._name}: ready after {loop.time() - began:.0f} seconds")
                return True
            await asyncio.sleep(POLL)
        return False

    async def _end(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()
        if self._process is not None:
            await self._process.end()
