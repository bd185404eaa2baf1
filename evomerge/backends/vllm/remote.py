"""A vLLM server that somebody else runs: what it offers, found out without disturbing it.

Nothing is called there that could raise in its engine: whether it has the worker extension is read from its own account
of how it was started.
"""

from dataclasses import dataclass

from evomerge.backends.vllm.link import Link, Refused
from evomerge.errors import BackendError

EXTENSION = "evomerge.backends.vllm.extension.Extension"


@dataclass(frozen=True, slots=True)
class Offer:
    """What a server can hold: whole models, by the worker extension, and adapters that are loaded while it runs."""

    model: str
    whole_models: bool
    adapters: bool


class Remote:
    """A server at an address. It is never started or ended here."""

    starts = 1

    def __init__(self, url: str, key: str | None, connections: int) -> None:
        self._url, self._key, self._connections = url, key, connections
        self._link: Link | None = None

    async def ready(self) -> Link:
        """Return the way to the server. Raises BackendError where nobody answers."""
        if self._link is None:
            self._link = Link(self._url, self._key, self._connections)
        if not await self._link.healthy():
            raise BackendError(f"no vLLM server answers at {self._url}; start it, or correct backend.url")
        return self._link

    async def stop(self) -> None:
        """Close the connections."""
        if self._link is not None:
            await self._link.close()
            self._link = None


async def offered(url: str, key: str | None) -> Offer:
    """Ask a server what it offers. Raises BackendError where nobody answers, or not as vLLM does."""
    remote = Remote(url, key, 1)
    try:
        link = await remote.ready()
        try:
            served = await link.models()
        except Refused as refused:
            raise BackendError(f"the server at {url} does not tell its models: {refused}") from None
        model = next((str(one["id"]) for one in served if not one.get("parent")), None)
        if model is None:
            raise BackendError(f"the server at {url} serves no model")
        return Offer(model, await link.extension() == EXTENSION, await link.takes_adapters())
    finally:
        await remote.stop()
