"""The dialect of messages: where the system's words go, what a reply says, and what its errors mean."""

import json

import pytest

from evomerge.errors import ConfigError, EndpointPaused
from evomerge.exchange import Answer, Generate, Judge, Message, Sampling, Usage
from tests.backends.api.dialects.asking import KEY, ask
from tests.support.endpoint import Reply, chat_server, message

SPOKEN = {"dialect": "anthropic"}


def refusal(status: int, kind: str, said: str) -> Reply:
    return Reply(status, {"type": "error", "error": {"type": kind, "message": said}, "request_id": "req_1"})


def test_a_chat_is_asked_with_the_system_apart_and_key_and_version_in_headers() -> None:
    turns = (Message("system", "be brief"), Message("user", "hi"), Message("assistant", "ho"), Message("user", "well?"))
    with chat_server(lambda _: "yes") as server:
        sampling = Sampling(max_tokens=9, temperature=0.5, top_p=0.9, stop=("\n",), seed=4)
        ask(server, Generate(turns, sampling), **SPOKEN)
    assert server.bodies == [
        {
            "model": "m",
            "system": "be brief",
            "messages": [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": "ho"},
                {"role": "user", "content": "well?"},
            ],
            "max_tokens": 9,
            "temperature": 0.5,
            "top_p": 0.9,
            "stop_sequences": ["\n"],
        }
    ]
    (headers,) = server.headers
    assert (headers["x-api-key"], headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert "authorization" not in headers


def test_plain_text_is_a_message_of_the_user() -> None:
    with chat_server(lambda _: "yes") as server:
        ask(server, Generate("hello"), **SPOKEN)
    (body,) = server.bodies
    assert body["messages"] == [{"role": "user", "content": "hello"}]
    assert "system" not in body


def test_an_answer_is_its_texts_without_what_was_thought_and_cached_prompts_are_read_too() -> None:
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "4"}, {"type": "text", "text": "2"}]
    told = {"input_tokens": 3, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 100, "output_tokens": 8}
    body = {"content": parts, "stop_reason": "end_turn", "usage": told, "model": "m-20260101"}
    with chat_server(lambda _: Reply(body=body)) as server:
        answer = ask(server, Generate("hello"), **SPOKEN)
    assert answer == Answer("42", usage=Usage(113, 8), model="m-20260101", seconds=answer.seconds)
    assert answer.seconds > 0


@pytest.mark.parametrize(
    ("stop", "finish"),
    [("end_turn", "stop"), ("stop_sequence", "stop"), ("refusal", "stop"), ("max_tokens", "length")],
)
def test_why_it_stopped_is_told(stop: str, finish: str) -> None:
    with chat_server(lambda _: message("half", stop)) as server:
        answer = ask(server, Generate("hello"), **SPOKEN)
    assert (answer.text, answer.finish, answer.failure) == ("half", finish, None)


def test_a_choice_is_asked_for_as_the_input_of_the_only_tool() -> None:
    parts = [{"type": "tool_use", "id": "t", "name": "answer", "input": {"answer": "no"}}]
    body = {"content": parts, "stop_reason": "tool_use", "usage": {"input_tokens": 3, "output_tokens": 8}}
    with chat_server(lambda _: Reply(body=body)) as server:
        chosen = ask(server, Generate("well?", Sampling(choices=("yes", "no"))), **SPOKEN)
        fitted = ask(server, Generate("well?", Sampling(schema='{"type": "object"}')), **SPOKEN)
        free = ask(server, Generate("well?", Sampling(choices=("yes", "no"))), structured=None, **SPOKEN)
    assert (chosen.text, json.loads(fitted.text or "")) == ("no", {"answer": "no"})
    first, second, third = server.bodies
    assert first["tool_choice"] == {"type": "tool", "name": "answer"}
    assert first["tools"][0]["input_schema"]["properties"]["answer"]["enum"] == ["yes", "no"]
    assert second["tools"][0]["input_schema"] == {"type": "object"}
    assert "tools" not in third
    assert free.failure is None


@pytest.mark.parametrize(
    ("reply", "attempts"),
    [
        (refusal(529, "overloaded_error", "Overloaded"), 6),
        (refusal(500, "api_error", "Internal server error"), 6),
        (refusal(429, "rate_limit_error", "This request would exceed your rate limit"), 6),
        (refusal(400, "invalid_request_error", "max_tokens: too large"), 1),
        (refusal(413, "request_too_large", "too large"), 1),
        (Reply(body={"content": [{"type": "text", "text": "no usage"}]}), 3),
        (Reply(body={"type": "message"}), 3),
    ],
)
def test_its_errors_mean_what_they_say(reply: Reply, attempts: int) -> None:
    with chat_server(lambda _: reply) as server:
        answer = ask(server, Generate("hello"), **SPOKEN)
    assert answer.failure is not None
    assert server.asked.total() == attempts
    if reply.status != 200:
        assert reply.body["error"]["message"] in answer.failure.message


@pytest.mark.parametrize(
    "reply",
    [
        refusal(401, "authentication_error", "invalid x-api-key"),
        refusal(403, "permission_error", "not yours"),
        refusal(400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
    ],
)
def test_a_wrong_key_or_an_empty_account_pauses_it(reply: Reply) -> None:
    with (
        chat_server(lambda _: reply) as server,
        pytest.raises(EndpointPaused, match=reply.body["error"]["message"]),
    ):
        ask(server, Generate("hello"), **SPOKEN)
    assert server.asked.total() == 1


def test_likelihoods_are_refused_before_anything_is_sent() -> None:
    with chat_server(lambda _: "yes") as server, pytest.raises(ConfigError, match="tells no likelihoods"):
        ask(server, Judge("a", ("b",)), **SPOKEN)
    assert not server.asked
