"""Running a server until it is told to stop: a socket, uvicorn on it, and a gentle end.

SIGTERM and Ctrl-C close the door at once and let what is under way end, for as long as the answers may take; a second
signal ends it now. Nobody is let in before there is somebody who can answer.
"""

import socket
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from evomerge.errors import ConfigError
from evomerge.serve.answering import Answering

if TYPE_CHECKING:
    from starlette.applications import Starlette

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_KEEP_ALIVE = 75
"""Seconds for which an idle connection is kept; longer than clients do, so that none sends into a closing one."""


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound and does not listen yet; port 0 takes a free one. Raises ConfigError."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise ConfigError(
            f"{host} port {port} cannot be listened on ({error.strerror or error}); see --host and --port"
        ) from None
    return made


def address(door: socket.socket) -> str:
    """Return the address that clients are given."""
    host, port = door.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


async def serve(
    app: "Starlette", answering: Answering, door: socket.socket, *, grace: float, ready: Callable[[], None]
) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called when clients may come.

    Then nobody new is let in, and who waits has `grace` seconds left. Raises what opening `answering` raises.
    """
    import uvicorn

    class Server(uvicorn.Server):
        """uvicorn's, which would end the process by the signal that it was told to stop with."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
            self.force_exit = self.should_exit
            self.should_exit = True

    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(grace)),
    )
    async with answering.open():
        await Server(config).serve(sockets=[door])
