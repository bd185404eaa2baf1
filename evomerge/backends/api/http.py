"""The door to the network: the only module that imports the HTTP client.

httpx2 is used because its pool recovers from requests that are cancelled while others wait, which httpx's does not. No
redirect is followed, so that a key goes to the host that the job names and to no other.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.backends.api.faults import TimedOut, Transient
from evomerge.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server sent: status, headers in small letters, and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Door:
    """Connections to one server, at most `connections` at a time. Made inside a running event loop.

    `timeout` is in seconds for a whole reply, None for as long as it takes. Raises ConfigError without the client.
    """

    def __init__(self, connections: int, timeout: float | None) -> None:
        try:
            import httpx2
        except ImportError:
            raise ConfigError(
                "servers are asked by the HTTP client httpx2, with tenacity; install them with: pip install "
                "'evomerge[api]'"
            ) from None
        self._errors = httpx2.RequestError
        self._timeout = timeout
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = httpx2.AsyncClient(limits=limits, timeout=None, follow_redirects=False)

    async def get(self, url: str, headers: Mapping[str, str]) -> Reply:
        """Return the reply, whatever its status. Raises TimedOut, or Transient where nobody answers."""
        return await self._sent("GET", url, headers, None)

    async def post(self, url: str, headers: Mapping[str, str], body: Any) -> Reply:
        """Send JSON and return the reply, whatever its status. Raises TimedOut, or Transient where nobody answers."""
        return await self._sent("POST", url, headers, body)

    async def _sent(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> Reply:
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self._client.request(method, url, headers=dict(headers), json=body)
        except TimeoutError:
            raise TimedOut(f"it gave no whole answer in {self._timeout:g} seconds") from None
        except self._errors as error:
            raise Transient(f"it cannot be reached ({str(error) or type(error).__name__})") from None
        return Reply(reply.status_code, {name.lower(): value for name, value in reply.headers.items()}, reply.content)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()
