"""The door to the network: the only module that imports the HTTP client.

httpx2 is used because its pool recovers from requests that are cancelled while others wait, which httpx's does not. No
redirect is followed, so that a key goes to the host that the job names and to no other. What a server sends is read up
to a bound, so that no server can fill the memory.
"""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evomerge.backends.api.faults import Away, Malformed, TimedOut
from evomerge.errors import ConfigError

if TYPE_CHECKING:
    from httpx2 import Response

MOST_BYTES = 64 << 20
"""An answer longer than this is none."""
CONNECTING = 15.0
"""Seconds in which a server must take a connection."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server sent: status, headers in small letters, and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Door:
    """Connections to one server, at most `connections` at a time. Made inside a running event loop.

    `timeout` is in seconds for a whole reply, None for as long as it takes. `headers` go with every request: keys stand
    there, where no traceback shows them. Raises ConfigError without the client.
    """

    def __init__(self, connections: int, timeout: float | None, headers: Mapping[str, str] | None = None) -> None:
        try:
            import httpx2
        except ImportError:
            raise ConfigError(
                "servers are asked by the HTTP client httpx2, with tenacity; install them with: pip install "
                "'evomerge[api]'"
            ) from None
        self._errors = httpx2.RequestError
        self._unsent = (
            httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol,
            httpx2.LocalProtocolError,
        )  # fmt: skip
        self._timeout = timeout
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        patience = httpx2.Timeout(None, connect=None if timeout is None else min(timeout, CONNECTING))
        self._client = httpx2.AsyncClient(
            limits=limits, timeout=patience, headers=dict(headers or {}), follow_redirects=False
        )

    async def get(self, url: str, headers: Mapping[str, str]) -> Reply:
        """Return the reply, whatever its status. Raises TimedOut, Malformed, or Transient where nobody answers."""
        return await self._sent("GET", url, headers, None)

    async def post(self, url: str, headers: Mapping[str, str], body: Any) -> Reply:
        """Send JSON and return the reply, whatever its status. Raises as `get` does."""
        return await self._sent("POST", url, headers, body)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _sent(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> Reply:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchanged(method, url, headers, body)
        except TimeoutError:
            raise TimedOut(f"it gave no whole answer in {self._timeout:g} seconds") from None
        except self._errors as error:
            said = f"it cannot be reached ({str(error) or type(error).__name__})"
            raise Away(said, free=isinstance(error, self._unsent)) from None

    async def _exchanged(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> Reply:
        request = self._client.build_request(method, url, headers=dict(headers), json=body)
        response = await self._client.send(request, stream=True)
        try:
            content = await self._read(response)
        finally:
            await response.aclose()
        return Reply(response.status_code, {name.lower(): value for name, value in response.headers.items()}, content)

    async def _read(self, response: "Response") -> bytes:
        """Return the whole body; of a refusal as much as came. Raises Malformed for an answer that is cut off."""
        parts: list[bytes] = []
        size = 0
        try:
            async with aclosing(response.aiter_bytes()) as stream:
                async for part in stream:
                    parts.append(part)
                    size += len(part)
                    if size > MOST_BYTES:
                        raise Malformed(f"its answer is longer than {MOST_BYTES >> 20} MiB")
        except self._errors:
            if response.status_code == 200:
                raise Malformed("its answer is cut off") from None
        return b"".join(parts)
