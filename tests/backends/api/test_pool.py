"""The bug that decided which HTTP client is used: requests cancelled while others wait for a connection.

In httpx 0.28.1 a request that is cancelled at a wrong moment leaves its connection taken for ever; once all are, every
request ends in PoolTimeout. The story is told to each client that is installed.
"""

import asyncio
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from tests.support.endpoint import ChatServer, chat_server

MODULES = [name for name in ("httpx", "httpx2") if find_spec(name)]
CONNECTIONS = 2
ROUNDS = 60


async def usable_after_cancelling(module: Any, server: ChatServer) -> bool:
    """Cancel requests at many moments while others wait, and return whether the client can be used afterwards."""
    limits = module.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    body = {"messages": [{"role": "user", "content": "hello"}]}
    async with module.AsyncClient(limits=limits, timeout=module.Timeout(20.0, pool=2.0)) as client:
        for steps in range(ROUNDS):
            asked = [
                asyncio.create_task(client.post(f"{server.url}/chat/completions", json=body))
                for _ in range(4 * CONNECTIONS)
            ]
            for _ in range(steps):  # at another moment in each round: no time is waited for
                await asyncio.sleep(0)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        try:
            return (await client.post(f"{server.url}/chat/completions", json=body)).status_code == 200
        except module.PoolTimeout:
            return False


@pytest.mark.parametrize("name", MODULES)
def test_a_pool_recovers_from_cancelled_requests_unless_it_is_the_affected_client(name: str) -> None:
    module = import_module(name)
    with chat_server(lambda _: "yes") as server:
        usable = asyncio.run(usable_after_cancelling(module, server))
    affected = (name, module.__version__) == ("httpx", "0.28.1")
    assert usable is not affected


def test_the_client_that_is_used_is_among_them() -> None:
    assert "httpx2" in MODULES
