"""The lock on every door of a vLLM server that is started here.

vLLM's own key guards only some addresses, and not those that change weights. Guard wants it for all of them, except the
one that says whether the server is well. It runs inside vLLM (`--middleware`) and imports the standard library alone.
"""

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

VARIABLE = "VLLM_API_KEY"
"""The environment variable with the key: vLLM reads it too, and no list of processes shows it."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """ASGI middleware that lets through `/health` and requests with `Authorization: Bearer KEY`; others get 401.

    Raises ValueError where there is no key: a server that nobody guards is not to start.
    """

    def __init__(self, app: App) -> None:
        key = os.environ.get(VARIABLE)
        if not key:
            raise ValueError(
                f"there is no key in {VARIABLE}, and without one this server would be open to everybody here"
            )
        self._app = app
        self._wanted = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan" or self._may_enter(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "no key"})
        else:
            headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": b'{"error": "this server wants its key"}'})

    def _may_enter(self, scope: Scope) -> bool:
        if scope["type"] == "http" and scope["path"] == "/health":
            return True
        shown = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        return len(shown) == 1 and hmac.compare_digest(shown[0], self._wanted)
