import asyncio
from typing import Any

import pytest

from evomerge.backends.vllm.guard import VARIABLE, Guard


def asked(scope: dict[str, Any]) -> list[Any]:
    """What is sent to who asks; `"inside"` where the guard let the request through."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sent.append("inside")

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("the guard needs nothing more")

    asyncio.run(Guard(app)({"headers": [], "method": "POST", **scope}, receive, send))
    return sent


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "the-key")


@pytest.mark.parametrize("path", ["/v1/completions", "/collective_rpc", "/reset_prefix_cache", "/metrics", "/"])
def test_every_address_wants_the_key(path: str) -> None:
    start, body = asked({"type": "http", "path": path})
    assert start["status"] == 401
    assert b"wants its key" in body["body"]
    assert asked({"type": "http", "path": path, "headers": [(b"authorization", b"Bearer the-key")]}) == ["inside"]


def test_health_is_told_to_everybody() -> None:
    assert asked({"type": "http", "path": "/health"}) == ["inside"]


@pytest.mark.parametrize("path", ["/health/", "/health/../collective_rpc", "//health", "/healthy", "/v1/health"])
def test_what_only_looks_like_health_wants_the_key(path: str) -> None:
    assert asked({"type": "http", "path": path})[0]["status"] == 401


@pytest.mark.parametrize("value", [b"the-key", b"Bearer the-ke", b"Bearer the-key ", b"bearer", b"", b"Basic the-key"])
def test_a_wrong_key_is_refused(value: bytes) -> None:
    assert asked({"type": "http", "path": "/v1", "headers": [(b"authorization", value)]})[0]["status"] == 401


def test_a_right_key_beside_a_wrong_one_is_refused() -> None:
    headers = [(b"authorization", b"Bearer other"), (b"authorization", b"Bearer the-key")]
    assert asked({"type": "http", "path": "/v1", "headers": headers})[0]["status"] == 401


def test_no_method_is_let_through_without_the_key() -> None:
    assert asked({"type": "http", "path": "/v1/models", "method": "OPTIONS"})[0]["status"] == 401


def test_a_websocket_wants_the_key_too() -> None:
    assert asked({"type": "websocket", "path": "/v1/realtime"})[0]["type"] == "websocket.close"
    assert asked({"type": "websocket", "path": "/health"})[0]["type"] == "websocket.close"


def test_the_server_may_start_and_end() -> None:
    assert asked({"type": "lifespan"}) == ["inside"]


def test_without_a_key_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(ValueError, match="without one this server would be open"):
        asked({"type": "lifespan"})
