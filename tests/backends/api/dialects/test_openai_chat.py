"""The dialect of chat completions: structured answers, log-probabilities, and choices judged by their first token."""

import json
import math

import pytest

from evomerge.backends.api.dialects.openai_chat import LISTED, UNLISTED
from evomerge.exchange import Generate, Judge, Likelihood, Message, Sampling
from tests.backends.api.dialects.asking import ask
from tests.support.endpoint import Reply, chat, chat_server, usage

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


def with_tokens(text: str, *logprobs: float) -> Reply:
    """Return an answer whose tokens have log-probabilities."""
    reply = chat(text)
    reply.body["choices"][0]["logprobs"] = {"content": [{"token": "t", "logprob": one} for one in logprobs]}
    return reply


def with_first(*listed: tuple[str, float]) -> Reply:
    """Return an answer that says which tokens might have come first."""
    reply = chat("A")
    first = {"top_logprobs": [{"token": token, "logprob": logprob} for token, logprob in listed]}
    reply.body["choices"][0]["logprobs"] = {"content": [first]}
    return reply


def test_an_answer_is_held_to_a_schema() -> None:
    with chat_server(lambda _: '{"n": 4}') as server:
        answer = ask(server, Generate("2+2", Sampling(schema=json.dumps(SCHEMA))))
    assert answer.text == '{"n": 4}'
    held = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    assert server.bodies[0]["response_format"] == held


def test_an_answer_that_is_one_of_some_choices_comes_as_that_choice_alone() -> None:
    with chat_server(lambda _: '{"answer": "no"}') as server:
        answer = ask(server, Generate("well?", Sampling(choices=("yes", "no"))))
    assert answer.text == "no"
    schema = server.bodies[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"] == {"answer": {"type": "string", "enum": ["yes", "no"]}}
    assert schema["required"] == ["answer"]


@pytest.mark.parametrize("text", ["no", '{"answer": 4}', '["no"]', "[" * 100_000])
def test_an_answer_that_is_not_as_it_was_asked_for_stays_as_it_is(text: str) -> None:
    with chat_server(lambda _: text) as server:
        assert ask(server, Generate("well?", Sampling(choices=("yes", "no")))).text == text


def test_a_server_of_vllm_is_asked_for_choices_and_schemas_in_its_own_way() -> None:
    with chat_server(lambda _: "no") as server:
        ask(server, Generate("well?", Sampling(choices=("yes", "no"))), structured="structured_outputs")
        ask(server, Generate("2+2", Sampling(schema=json.dumps(SCHEMA))), structured="structured_outputs")
    assert [body["structured_outputs"] for body in server.bodies] == [{"choice": ["yes", "no"]}, {"json": SCHEMA}]
    assert not any("response_format" in body for body in server.bodies)


def test_where_nothing_can_hold_an_answer_the_prompt_alone_asks() -> None:
    with chat_server(lambda _: "no") as server:
        answer = ask(server, Generate("well?", Sampling(choices=("yes", "no"))), structured=None)
    assert answer.text == "no"
    assert set(server.bodies[0]) == {"model", "messages", "max_tokens", "temperature"}


def test_the_mean_log_probability_comes_where_it_is_wanted_and_told() -> None:
    with chat_server(lambda _: with_tokens("abc", -0.5, -1.0, -3.0)) as server:
        wanted = ask(server, Generate("hello", logprobs=True))
        unwanted = ask(server, Generate("hello"))
        unable = ask(server, Generate("hello", logprobs=True), logprobs=False)
    assert wanted.logprob == pytest.approx(-1.5)
    assert unwanted.logprob is None
    assert [body.get("logprobs") for body in server.bodies] == [True, None, None]
    assert unable.failure is None
    with chat_server(lambda _: "abc") as server:
        assert ask(server, Generate("hello", logprobs=True)).logprob is None


def test_choices_are_judged_by_the_tokens_that_might_have_come_first() -> None:
    listed = (("A", -0.7), (" A", -2.0), ("B", -1.5), ("\n", -3.0), ("Z", -9.0))
    with chat_server(lambda _: with_first(*listed)) as server:
        answer = ask(server, Judge("well?", (" A", " B", " C")), likelihoods="top_logprobs")
    both = math.log(math.exp(-0.7) + math.exp(-2.0))
    assert [one.tokens for one in answer.likelihoods] == [1, 1, 1]
    assert [one.logprob for one in answer.likelihoods] == pytest.approx([both, -1.5, -9.0 - UNLISTED])
    body = server.bodies[0]
    assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (1, True, LISTED)


def test_a_choice_is_judged_in_a_chat() -> None:
    with chat_server(lambda _: with_first(("yes", -0.1), ("no", -3.0))) as server:
        turns = (Message("system", "be brief"), Message("user", "well?"))
        answer = ask(server, Judge(turns, ("yes", "no")), likelihoods="top_logprobs")
    assert answer.likelihoods == (Likelihood(-0.1, 1), Likelihood(-3.0, 1))
    assert [turn["role"] for turn in server.bodies[0]["messages"]] == ["system", "user"]


def test_choices_that_begin_alike_are_missing_and_not_guessed() -> None:
    with chat_server(lambda _: with_first(("1", -0.1), ("2", -3.0))) as server:
        answer = ask(server, Judge("5+7", ("10", "12", "2")), likelihoods="top_logprobs")
    assert answer.failure is not None
    assert "two choices begin with '1'" in answer.failure.message
    assert answer.usage.prompt_tokens == 7
    assert server.asked.total() == 1


def test_a_server_that_lists_nothing_is_asked_three_times() -> None:
    with chat_server(lambda _: "A") as server:
        answer = ask(server, Judge("well?", ("A", "B")), likelihoods="top_logprobs")
    assert answer.failure is not None
    assert "tells no log-probabilities" in answer.failure.message
    assert server.asked.total() == 3


@pytest.mark.parametrize(
    "choice", [{"message": {}, "finish_reason": "content_filter"}, {"message": {"refusal": "I cannot"}}]
)
def test_a_filtered_answer_without_content_is_empty(choice: dict[str, object]) -> None:
    with chat_server(lambda _: Reply(body={"choices": [choice], "usage": usage(None)})) as server:
        answer = ask(server, Generate("hello"))
    assert (answer.text, answer.failure) == ("", None)
