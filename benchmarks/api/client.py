"""One client that asks a server many times, in a process of its own: prints what it took, as JSON.

`evomerge` is the backend that studies use, `openai` the official client asked by as many tasks as may be in flight, and
`sockets` says what the server can do: it sends bytes that are ready and reads no JSON.
"""

import argparse
import asyncio
import json
import resource
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from evomerge.backends.api.backend import ApiBackend
from evomerge.backends.api.settings import EndpointSettings
from evomerge.exchange import Generate, Request
from evomerge.recipe.tree import Endpoint

Asking = Callable[[str, int, int, int], Awaitable[None]]


class Wanted(argparse.Namespace):
    """What was asked for."""

    client: str
    url: str
    requests: int
    connections: int
    prompt: int


class Queued(Sequence[Request]):
    """Requests that are made when they are asked, so that the queue itself takes no memory."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Request:  # pyright: ignore[reportIncompatibleMethodOverride]  # no slices
        if index >= self.count:
            raise IndexError(index)
        return Generate(prompt_of(index, self.size))


def prompt_of(index: int, size: int) -> str:
    """Return a prompt of so many bytes, unlike every other."""
    return f"{index:08} ".ljust(size, "x")


async def ask_evomerge(url: str, requests: int, connections: int, size: int) -> None:
    """Ask as a study does."""
    settings = EndpointSettings(url=url, model="none", max_in_flight=connections)
    backend = ApiBackend({"one": settings}, {"one": "key"})
    async with backend.hold(Endpoint("one")) as model:
        async for _, answer in model.answer(Queued(requests, size)):
            assert answer.text is not None
    await backend.close()


async def ask_openai(url: str, requests: int, connections: int, size: int) -> None:
    """Ask by the official client."""
    import httpx  # pyright: ignore[reportMissingImports]  # it comes with openai
    from openai import AsyncOpenAI  # pyright: ignore[reportMissingImports]  # an extra of this benchmark

    limits: Any = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    connected: Any = httpx.AsyncClient(limits=limits, timeout=120)
    client: Any = AsyncOpenAI(base_url=url, api_key="key", http_client=connected)

    async def ask(index: int) -> None:
        messages = [{"role": "user", "content": prompt_of(index, size)}]
        answer = await client.chat.completions.create(model="none", messages=messages, max_tokens=64, temperature=0)
        assert answer.choices[0].message.content is not None

    await in_turn(ask, requests, connections)
    await client.close()


async def ask_sockets(url: str, requests: int, connections: int, size: int) -> None:
    """Send bytes that are ready, and read as many as come back."""
    port = int(url.split(":")[2].split("/")[0])
    body = json.dumps({"model": "none", "messages": [{"role": "user", "content": prompt_of(0, size)}]}).encode()
    sent = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(connections):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port))

    async def ask(_: int) -> None:
        reader, writer = free.get_nowait()
        writer.write(sent)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
        free.put_nowait((reader, writer))

    await in_turn(ask, requests, connections)


async def in_turn(ask: Callable[[int], Awaitable[None]], requests: int, connections: int) -> None:
    """Ask all requests, so many at a time."""
    waiting: Iterator[int] = iter(range(requests))

    async def work() -> None:
        for index in waiting:
            await ask(index)

    await asyncio.gather(*(work() for _ in range(connections)))


async def ask_all_at_once(url: str, requests: int, connections: int, size: int) -> None:
    """Ask by the official client, with a task for each request: what is written first."""
    import httpx  # pyright: ignore[reportMissingImports]  # it comes with openai
    from openai import AsyncOpenAI  # pyright: ignore[reportMissingImports]  # an extra of this benchmark

    limits: Any = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    connected: Any = httpx.AsyncClient(limits=limits, timeout=httpx.Timeout(120, pool=None))
    client: Any = AsyncOpenAI(base_url=url, api_key="key", http_client=connected)

    async def ask(index: int) -> None:
        messages = [{"role": "user", "content": prompt_of(index, size)}]
        await client.chat.completions.create(model="none", messages=messages, max_tokens=64, temperature=0)

    await asyncio.gather(*(ask(index) for index in range(requests)))
    await client.close()


CLIENTS: dict[str, Asking] = {
    "evomerge": ask_evomerge,
    "openai": ask_openai,
    "openai, a task for each": ask_all_at_once,
    "sockets": ask_sockets,
}


async def measured(wanted: Wanted) -> dict[str, float]:
    """Ask, once a few requests have warmed everything up, and return seconds, processor seconds and memory."""
    ask = CLIENTS[wanted.client]
    await ask(wanted.url, 2 * wanted.connections, wanted.connections, wanted.prompt)
    before = resource.getrusage(resource.RUSAGE_SELF)
    begun = time.perf_counter()
    await ask(wanted.url, wanted.requests, wanted.connections, wanted.prompt)
    seconds = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds,
        "processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_mib": after.ru_maxrss / 1024,
        "more_mib": (after.ru_maxrss - before.ru_maxrss) / 1024,
    }


def main() -> None:
    """Measure one client and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=tuple(CLIENTS))
    parser.add_argument("url")
    parser.add_argument("requests", type=int)
    parser.add_argument("connections", type=int)
    parser.add_argument("prompt", type=int)
    print(json.dumps(asyncio.run(measured(parser.parse_args(namespace=Wanted())))))


if __name__ == "__main__":
    main()
