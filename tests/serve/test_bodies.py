"""What clients send is read strictly, and what they get has the form that they know."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.exchange import Message, Sampling, Usage
from evomerge.serve.answering import Asked, Combined
from evomerge.serve.bodies import Kind, Reply, read
from evomerge.serve.refusals import Refusal
from tests.support.served import chat

DEFAULT = Sampling(max_tokens=9, temperature=0.5, stop=("END",))


def asked(body: dict[str, Any], kind: Kind = "chat"):
    return read(kind, json.dumps(body).encode(), DEFAULT)


def test_what_a_client_leaves_out_is_as_it_was_searched() -> None:
    found = asked(chat("hi", max_tokens=None, temperature=None, stop=None, seed=None, stream=None))
    assert found.question.sampling == DEFAULT
    assert (found.question.prompt, found.model, found.stream) == ((Message("user", "hi"),), "ensemble", False)


def test_what_a_client_says_goes_to_the_members() -> None:
    found = asked(chat("hi", max_tokens=3, temperature=0, top_p=0.9, stop=["a", "b"], seed=7))
    assert found.question.sampling == Sampling(max_tokens=3, temperature=0, top_p=0.9, stop=("a", "b"), seed=7)
    assert asked(chat("hi", max_completion_tokens=4, max_tokens=3)).question.sampling.max_tokens == 4
    assert asked(chat("hi", stop="a")).question.sampling.stop == ("a",)
    assert asked(chat("hi", metadata={"task": "sums"})).question.metadata == {"task": "sums"}


def test_messages_come_in_all_their_forms() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    body = {"model": "m", "messages": [{"role": "developer", "content": "be"}, {"role": "user", "content": parts}]}
    assert asked(body).question.prompt == (Message("system", "be"), Message("user", "one two"))


@pytest.mark.parametrize("prompt", ["say", ["say"]])
def test_a_completion_is_asked_as_plain_text(prompt: Any) -> None:
    assert asked({"model": "m", "prompt": prompt}, "text").question.prompt == "say"


def test_keys_that_change_no_answer_are_accepted() -> None:
    harmless = {"user": "u", "store": True, "service_tier": "auto", "n": 1, "logprobs": False, "tools": []}
    neutral = {"tool_choice": "none", "response_format": {"type": "text"}, "presence_penalty": 0, "logit_bias": {}}
    assert asked(chat("hi", **harmless, **neutral)) == asked(chat("hi"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n", 2), ("logprobs", True), ("top_logprobs", 5), ("tools", [{"type": "function"}]), ("frequency_penalty", 1),
        ("response_format", {"type": "json_object"}), ("logit_bias", {"1": 5}), ("reasoning_effort", "low"),
    ],
)  # fmt: skip
def test_what_this_server_does_not_do_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(Refusal) as refused:
        asked(chat("hi", **{key: value}))
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, "unsupported_parameter", key)
    assert f"'{key}'" in str(refused.value)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"messages": [{"role": "user", "content": "hi"}]}, "missing_required_parameter", "model"),
        ({"model": "m"}, "missing_required_parameter", "messages"),
        ({"model": "m", "messages": []}, "invalid_value", "messages"),
        ({"model": "m", "messages": [{"role": "tool", "content": "x"}]}, "invalid_value", "messages.0.role"),
        (chat("hi", temperature=-1), "invalid_value", "temperature"),
        (chat("hi", max_tokens=0), "invalid_value", "max_tokens"),
        (chat("hi", max_tokens="5"), "invalid_value", "max_tokens"),
        (chat("hi", temprature=1), "unknown_parameter", "temprature"),
        (chat("hi", metadata={"a": 1}), "invalid_value", "metadata.a"),
    ],
)
def test_a_body_that_cannot_be_used_names_the_key(body: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(Refusal) as refused:
        asked(body)
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, code, param)


def test_several_prompts_are_asked_one_by_one() -> None:
    with pytest.raises(Refusal, match="ask one prompt a request"):
        asked({"model": "m", "prompt": ["a", "b"]}, "text")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b'{"model": NaN}', b'"\\ud800"', b"[" * 100_000, b"\xff", b'{"a": 1e999}']
)
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        read("chat", raw, DEFAULT)
    assert refused.value.status == 400


SCALARS = st.none() | st.booleans() | st.floats() | st.text()


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_whatever_json_comes_is_read_or_refused(value: Any) -> None:
    for key in ("messages", "prompt", "model", "stop", "n", "metadata", "stream_options"):
        for kind in ("chat", "text"):
            with suppress(Refusal):
                read(kind, json.dumps(chat("hi") | {key: value}).encode(), DEFAULT)


ASKED = (Asked("a", Usage(3, 4), 0.5), Asked("b", Usage(10, 20), 0.25), Asked("c", failure="deadline"))
COMBINED = Combined("héllo", "length", ASKED, "a")


def events(kind: Kind, **keys: Any) -> list[Any]:
    question = chat("hi") if kind == "chat" else {"model": "ensemble", "prompt": "hi"}
    body = question | {"stream": True, **keys}
    sent = b"".join(Reply(asked(body, kind), "ensemble", "fp", COMBINED).events()).decode()
    lines = sent.split("\n\n")
    assert lines.pop() == ""
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_usage_is_summed_over_members() -> None:
    body = Reply(asked(chat("hi")), "ensemble", "fp", COMBINED).body()
    assert body["usage"] == {"prompt_tokens": 13, "completion_tokens": 24, "total_tokens": 37}
    assert COMBINED.usd == 0.75
    assert (COMBINED.answered, COMBINED.missing) == (("a", "b"), ("c",))


def test_the_events_of_a_chat_make_up_the_answer() -> None:
    found = events("chat")
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in found) == "héllo"
    assert [event["choices"][0]["finish_reason"] for event in found] == [None, None, "length"]
    assert len({event["id"] for event in found}) == 1
    assert not any("usage" in event for event in found)


def test_the_events_of_a_completion_make_up_the_answer_and_end_with_usage_where_it_is_wanted() -> None:
    found = events("text", stream_options={"include_usage": True})
    assert "".join(event["choices"][0]["text"] for event in found[:-1]) == "héllo"
    assert [event["usage"] for event in found[:-1]] == [None, None]
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["total_tokens"] == 37
