"""The key of an endpoint goes to the host that the job names, and nowhere else: not into a sentence, log or trace."""

import asyncio
import logging
import traceback

import pytest

from evomerge.backends.api.client import Client
from evomerge.backends.api.pace import Pace
from evomerge.backends.api.settings import EndpointSettings
from evomerge.errors import ConfigError, EndpointPaused, EvomergeError
from evomerge.exchange import Generate
from tests.support.endpoint import Reply, chat, chat_server

KEY = "canary-0123456789abcdef"

REPEATED = Reply(body=b'{"choices": "' + KEY.encode() + b'"}')
FAULTS = [
    Reply(401, {"error": {"message": f"wrong key {KEY}", "code": KEY}}),
    Reply(401, {"error": {"message": "x" * 290 + KEY}}),  # where a sentence is cut short, the key is not cut in two
    Reply(401, {"detail": f"wrong key {KEY}"}),
    Reply(403, f"no rights for {KEY}".encode()),
    Reply(404, {"error": f"nothing at {KEY}"}),
    Reply(400, {"error": {"message": f"what is {KEY}"}}),
    Reply(429, {"error": {"message": f"insufficient_quota of {KEY}"}}),
    Reply(500, {"error": {"message": f"failed for {KEY}"}}, {"Location": f"http://{KEY}/"}),
    Reply(302, {}, {"Location": f"http://127.0.0.1:1/{KEY}"}),
    Reply(body={"error": {"code": 500, "message": f"failed for {KEY}"}}),
    REPEATED,
    Reply(reset=True),
    Reply(promised=5, body={"key": KEY}),
]


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


def told_of(url: str, dialect: str) -> str:
    """Ask, and return everything that a person could come to see: sentences, and traces with what variables hold."""

    async def ask() -> str:
        settings = EndpointSettings(url=url, model="m", api_key_env="KEY", dialect=dialect, timeout=5)
        client = Client("fast", settings, KEY, Pace(sleep=no_sleep))
        seen = [repr(client), repr(settings)]
        try:
            answer = await client.ask(Generate("hello"))
            seen.append(repr(answer))
        except EvomergeError as error:
            trace = traceback.TracebackException.from_exception(error, capture_locals=True)
            seen += [str(error), repr(error), *trace.format()]
        await client.close()
        return "\n".join(seen)

    return asyncio.run(ask())


@pytest.mark.parametrize("dialect", ["openai", "completions", "anthropic"])
@pytest.mark.parametrize("fault", FAULTS, ids=range(len(FAULTS)))
def test_no_sentence_no_log_and_no_trace_shows_the_key(
    fault: Reply, dialect: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "evomerge"), chat_server(lambda _: fault) as server:
        told = told_of(server.url, dialect)
    assert any(KEY in value for headers in server.headers for value in headers.values())  # it was sent
    for part in (told, caplog.text):
        assert KEY[:12] not in part


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_the_logs_of_the_http_client_do_not_show_the_key(dialect: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), chat_server(lambda _: Reply(401, {})) as server:
        told_of(server.url, dialect)
    assert caplog.records
    assert KEY not in caplog.text


def test_a_redirect_is_not_followed_and_takes_the_key_nowhere() -> None:
    async def ask(url: str) -> None:
        client = Client("fast", EndpointSettings(url=url, model="m"), KEY, Pace(sleep=no_sleep))
        try:
            await client.ask(Generate("hello"))
        finally:
            await client.close()

    for status in (301, 302, 303, 307, 308):
        with chat_server(lambda _: chat("caught")) as elsewhere:
            away = Reply(status, {}, {"Location": f"{elsewhere.url}/chat/completions"})
            with chat_server(lambda _, away=away: away) as server, pytest.raises(ConfigError, match=f"{status}"):
                asyncio.run(ask(server.url))
        assert not elsewhere.headers


def test_each_endpoint_is_sent_its_own_key_alone() -> None:
    async def both(*urls: str) -> None:
        clients = [Client("e", EndpointSettings(url=url, model="m"), f"key-{n}", Pace()) for n, url in enumerate(urls)]
        await asyncio.gather(*(client.ask(Generate(f"{n}")) for n in range(5) for client in clients))
        for client in clients:
            await client.close()

    cookie = {**chat("yes").body}
    with (
        chat_server(lambda _: Reply(body=cookie, headers={"Set-Cookie": "session=abc"})) as first,
        chat_server(lambda _: "yes") as second,
    ):
        asyncio.run(both(first.url, second.url))
    assert set(first.keys) == {"Bearer key-0"}
    assert set(second.keys) == {"Bearer key-1"}
    assert not any("cookie" in headers for headers in second.headers)


def test_a_key_that_is_refused_is_told_by_its_variable() -> None:
    with chat_server(lambda _: Reply(401, {})) as server:
        told = told_of(server.url, "openai")
    assert "see that KEY holds a key" in told
    assert issubclass(EndpointPaused, EvomergeError)
