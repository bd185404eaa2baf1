"""Asking a real server in a dialect, with one request or several."""

import asyncio
from typing import Any

from evomerge.backends.api.client import Client
from evomerge.backends.api.pace import Pace
from evomerge.backends.api.settings import EndpointSettings
from evomerge.exchange import Answer, Request
from tests.support.endpoint import ChatServer

KEY = "canary-77aa"


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


def ask(server: ChatServer, request: Request, **settings: Any) -> Answer:
    """Ask one request of an endpoint with a key."""
    named = EndpointSettings.model_validate({"url": server.url, "model": "m", "api_key_env": "KEY", **settings})

    async def one() -> Answer:
        client = Client("fast", named, KEY, Pace(sleep=no_sleep))
        try:
            return await client.ask(request)
        finally:
            await client.close()

    return asyncio.run(one())
