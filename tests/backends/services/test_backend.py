"""What is asked of a service keeps to its rate; faults, keys and adapters that change are seen to."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from evomerge.backends.api.client import Pace
from evomerge.backends.protocol import Unsupported
from evomerge.backends.services.line import Rate, complaint
from evomerge.backends.services.make import service_backend
from evomerge.backends.services.offer import UnknownAdapter
from evomerge.backends.services.settings import ServiceSettings
from evomerge.errors import ConfigError, EndpointPaused, StudyChanged
from evomerge.exchange import Generate, Request, Sampling
from tests.backends.services.support import PROMPTS, adapters, asked, backend, merge
from tests.support.endpoint import Reply
from tests.support.services import LlamaCppServer, LoraxServer, running

REQUESTS: list[Request] = [Generate(prompt, Sampling(4)) for prompt in PROMPTS]
MANY: list[Request] = [Generate(f"{number}+1=", Sampling(2)) for number in range(12)]
ONE = merge({"one": 0.5})


def test_requests_begin_evenly_spaced() -> None:
    now, begun = [0.0], list[float]()

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    async def turns() -> None:
        rate = Rate(30, Pace(sleep=sleep), clock=lambda: now[0])
        for work in (0.0, 0.5, 0.0, 10.0, 0.0):
            await rate.turn()
            begun.append(now[0])
            now[0] += work

    asyncio.run(turns())
    assert begun == [0.0, 2.0, 4.0, 14.0, 16.0]


def test_the_rate_is_kept_by_the_requests_of_a_study(family: Path, tmp_path: Path) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    with running(LlamaCppServer(family / "base", adapters(family))) as server:
        settings = {"kind": "service", "dialect": "llama.cpp", "url": server.url, "requests_per_minute": 6}
        service = service_backend(
            ServiceSettings.model_validate(settings), root=tmp_path, folder=tmp_path, environment={}, pace=Pace(sleep=sleep)
        )
        asked(service, ONE, REQUESTS)
    assert len(waited) == len(REQUESTS) - 1
    assert all(seconds > 5 for seconds in waited)


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_are_under_way_than_was_said(most: int, family: Path, tmp_path: Path) -> None:
    with running(LlamaCppServer(family / "base", adapters(family))) as server:
        asked(backend(server, "llama.cpp", tmp_path, max_in_flight=most), ONE, MANY)
        assert server.most_at_once <= most


@pytest.mark.parametrize(
    "fault",
    [
        Reply(500, {"error": {"message": "out of memory"}}),
        Reply(503, {"error": {"message": "Loading model"}}),
        Reply(429, {"error": "Model is overloaded"}, {"Retry-After": "0"}),
        Reply(200, b'{"content": "half'),
        Reply(200, {"nothing": 1}),
    ],
)
def test_what_may_be_answered_later_is_asked_again(fault: Reply, family: Path, tmp_path: Path) -> None:
    with running(LlamaCppServer(family / "base", adapters(family))) as server:
        expected = asked(backend(server, "llama.cpp", tmp_path), ONE, REQUESTS)
        server.fails = [fault, fault]
        assert asked(backend(server, "llama.cpp", tmp_path), ONE, REQUESTS) == expected
        assert server.fails == []


def test_a_request_that_is_refused_is_missing_and_not_asked_again(family: Path, tmp_path: Path) -> None:
    with running(LlamaCppServer(family / "base", adapters(family))) as server:
        server.fails = [Reply(400, {"error": {"message": "the request exceeds the context size"}})]
        answers = asked(backend(server, "llama.cpp", tmp_path, max_in_flight=1), ONE, REQUESTS)
        assert len(server.asked) == len(REQUESTS)
    missing = [answer.failure for answer in answers if answer.failure is not None]
    assert len(missing) == 1
    assert missing[0].kind == "refused"
    assert "exceeds the context size" in missing[0].message


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        (Reply(500, {"error": "out of memory"}), EndpointPaused, "out of memory; start again when it answers"),
        (Reply(400, {"error": "no such thing"}), ConfigError, "no such thing; it refuses what this job asks"),
        (Reply(404, {"error": "File Not Found"}), ConfigError, "check backend.url and backend.dialect"),
    ],
)
def test_a_service_that_answers_nothing_ends_the_study(
    fault: Reply, error: type[Exception], said: str, family: Path, tmp_path: Path
) -> None:
    with running(LlamaCppServer(family / "base", adapters(family))) as server:
        server.fails = [fault] * 500
        with pytest.raises(error, match=said):
            asked(backend(server, "llama.cpp", tmp_path), ONE, MANY)


@pytest.mark.parametrize("dialect", ["llama.cpp", "lorax", "vllm"])
def test_nobody_at_the_address_is_said_with_the_address(dialect: str, family: Path, tmp_path: Path) -> None:
    with running(LlamaCppServer(family / "base", adapters(family))) as server:
        gone = backend(server, dialect, tmp_path)
    plan = gone.plan(merge({"one": 1.0}))
    assert isinstance(plan, Unsupported)
    assert server.url.partition("//")[2] in plan.reason
    with pytest.raises(EndpointPaused, match="cannot be reached"):
        asked(gone, merge({"one": 1.0}), REQUESTS)


@pytest.mark.parametrize("dialect", ["lorax", "vllm"])
def test_a_server_of_another_kind_is_noticed(dialect: str, family: Path, tmp_path: Path) -> None:
    with running(LlamaCppServer(family / "base", adapters(family))) as server:
        plan = backend(server, dialect, tmp_path).plan(merge({"one": 1.0}))
    assert isinstance(plan, Unsupported)
    assert re.search("check backend.url and backend.dialect|no adapter 'one'", plan.reason)


def test_adapters_that_change_under_their_ids_end_the_study(family: Path, tmp_path: Path) -> None:
    with running(LlamaCppServer(family / "base", adapters(family))) as server:
        service = backend(server, "llama.cpp", tmp_path)
        recipe = service.known(ONE)
        asked(backend(server, "llama.cpp", tmp_path), recipe, REQUESTS[:1])
        server.files[0] = "/models/elsewhere/one.gguf"
        with pytest.raises(StudyChanged, match="other adapters"):
            asked(service, recipe, REQUESTS[:1])


def test_other_adapters_may_come_and_go_and_change_their_numbers(family: Path, tmp_path: Path) -> None:
    with running(LlamaCppServer(family / "base", adapters(family, "one", "two"))) as server:
        recipe = backend(server, "llama.cpp", tmp_path).known(ONE)
    with running(LlamaCppServer(family / "base", adapters(family, "wide", "one"))) as server:
        asked(backend(server, "llama.cpp", tmp_path), recipe, REQUESTS[:1])
        assert server.asked[0]["lora"] == [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 0.5}]


def test_an_adapter_that_is_not_there_is_named_with_its_place(family: Path, tmp_path: Path) -> None:
    with running(LlamaCppServer(family / "base", adapters(family))) as server:
        with pytest.raises(UnknownAdapter) as raised:
            backend(server, "llama.cpp", tmp_path).known(merge({"one": 1.0, "wid": 1.0}))
    assert raised.value.index == 1


@pytest.mark.parametrize("dialect", ["llama.cpp", "lorax"])
def test_the_key_is_sent_and_in_no_sentence(dialect: str, family: Path, tmp_path: Path) -> None:
    kind: Any = LlamaCppServer if dialect == "llama.cpp" else LoraxServer
    with running(kind(family / "base", adapters(family), key="canary")) as server:
        found = asked(backend(server, dialect, tmp_path, api_key_env="KEY"), merge({"one": 1.0}), REQUESTS[:1])
        assert found[0].failure is None
        server.key = "another"
        with pytest.raises(EndpointPaused) as raised:
            asked(backend(server, dialect, tmp_path, api_key_env="KEY"), merge({"one": 1.0}), REQUESTS)
    assert "canary" not in str(raised.value)
    assert "see that KEY holds its key" in str(raised.value)


def test_a_key_that_is_wanted_and_not_named_is_asked_for(family: Path, tmp_path: Path) -> None:
    with running(LlamaCppServer(family / "base", adapters(family), key="canary")) as server:
        plan = backend(server, "llama.cpp", tmp_path).plan(ONE)
    assert isinstance(plan, Unsupported)
    assert "backend.api_key_env" in plan.reason


@pytest.mark.parametrize("value", [None, "", "two words", "ümlaut"])
def test_a_key_that_cannot_be_one_is_refused_before_anything_is_asked(value: str | None, tmp_path: Path) -> None:
    settings = ServiceSettings.model_validate(
        {"kind": "service", "dialect": "lorax", "url": "http://127.0.0.1:1", "api_key_env": "KEY"}
    )
    with pytest.raises(ConfigError, match=r"backend\.api_key_env"):
        service_backend(settings, root=tmp_path, folder=tmp_path, environment={} if value is None else {"KEY": value})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"url": "127.0.0.1:8080"}, "no address"),
        ({"url": "http://user:secret@host"}, "no address"),
        ({"dialect": "tgi"}, "lorax"),
        ({"folder": "shared"}, "folder is for vllm"),
        ({"dialect": "vllm", "source": "hub"}, "source is for lorax"),
        ({"requests_per_minute": 0}, "greater than 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ServiceSettings.model_validate({"kind": "service", "dialect": "lorax", "url": "http://host:1"} | changed)


def test_room_is_left_for_others_unless_somebody_says_otherwise() -> None:
    settings = ServiceSettings.model_validate({"kind": "service", "dialect": "lorax", "url": "http://host:1/v1/"})
    assert (settings.requests_per_minute, settings.max_in_flight) == (60, 2)
    assert (settings.url, settings.host) == ("http://host:1", "host:1")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"code": 400, "message": "bad\\nthing"}}', "bad thing"),
        (b'{"error": "bad thing", "error_type": "validation"}', "bad thing"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b"<html>", ""),
        (b"null", ""),
    ],
)
def test_complaints_are_read_as_each_service_writes_them(body: bytes, said: str) -> None:
    assert complaint(body) == said
