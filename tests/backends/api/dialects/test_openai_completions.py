"""The dialect of older completions: plain text in and out, and likelihoods of texts that the server reads."""

import math
from typing import Any

import pytest

from evomerge.errors import ConfigError
from evomerge.exchange import Generate, Judge, Message, Sampling
from tests.backends.api.dialects.asking import KEY, ask
from tests.support.endpoint import ChatServer, Reply, chat_server

SPOKEN = {"dialect": "completions", "likelihoods": "echo"}


def tokens_of(text: str) -> list[str]:
    """Split a text as a tokenizer might: words with the space before them, and single characters of longer ones."""
    words = text.replace(" ", "\0 ").split("\0")
    return [piece for word in words for piece in ([word] if len(word) < 6 else list(word)) if piece]


def logprob_of(before: str, token: str) -> float:
    """The log-probability of a token in a language that nobody speaks."""
    return -0.1 - (sum(map(ord, before[-5:] + token)) % 97) / 50


class Reader:
    """A server that reads texts and tells the likelihood of each token, as `echo` has it."""

    def __init__(self, *, offsets: bool = True, writes: str = " and", turned: bool = False) -> None:
        self.offsets, self.writes, self.turned = offsets, writes, turned
        self.server: ChatServer | None = None

    def __call__(self, _: str) -> Reply:
        assert self.server is not None
        texts: list[str] = self.server.bodies[-1]["prompt"]
        choices = [self._choice(index, text) for index, text in enumerate(texts)]
        told = {"prompt_tokens": sum(map(len, texts)), "completion_tokens": len(texts)}
        return Reply(body={"choices": choices[::-1] if self.turned else choices, "usage": told})

    def _choice(self, index: int, text: str) -> dict[str, Any]:
        tokens = [*tokens_of(text), *([self.writes] if self.writes else [])]
        begins = [len("".join(tokens[:place])) for place in range(len(tokens))]
        told: dict[str, Any] = {
            "tokens": tokens,
            "token_logprobs": [None] + [logprob_of("".join(tokens[:n]), tokens[n]) for n in range(1, len(tokens))],
        }
        if self.offsets:
            told["text_offset"] = begins
        return {"index": index, "text": text + self.writes, "logprobs": told, "finish_reason": "length"}


def expected(prompt: str, continuation: str) -> tuple[float, int]:
    """The likelihood of a continuation, computed token by token."""
    whole = tokens_of(prompt + continuation)
    places = [n for n in range(len(whole)) if len("".join(whole[: n + 1])) > len(prompt)]
    return math.fsum(logprob_of("".join(whole[:n]), whole[n]) for n in places), len(places)


@pytest.mark.parametrize("reader", [{}, {"offsets": False}, {"writes": ""}, {"turned": True}])
@pytest.mark.parametrize("prompt", ["The capital of France is", "Ends with a space ", "é, and more é:"])
def test_continuations_are_judged_by_what_the_server_reads(prompt: str, reader: dict[str, Any]) -> None:
    continuations = (" Paris", " Rome it is", " Constantinople", "s")
    reading = Reader(**reader)
    with chat_server(reading) as server:
        reading.server = server
        answer = ask(server, Judge(prompt, continuations), **SPOKEN)
    assert answer.failure is None
    for one, continuation in zip(answer.likelihoods, continuations, strict=True):
        logprob, tokens = expected(prompt, continuation)
        assert (one.logprob, one.tokens) == (pytest.approx(logprob), tokens)
    (body,) = server.bodies
    assert body["prompt"] == [prompt + continuation for continuation in continuations]
    assert (body["echo"], body["max_tokens"]) == (True, 1)
    assert answer.usage.completion_tokens == len(continuations)


def test_without_a_prompt_there_is_no_likelihood() -> None:
    reading = Reader()
    with chat_server(reading) as server:
        reading.server = server
        answer = ask(server, Judge("", ("a",)), **SPOKEN)
    assert answer.failure is not None
    assert "nothing stands before the continuation" in answer.failure.message


@pytest.mark.parametrize(
    "told",
    [
        None,
        {"tokens": ["a"], "token_logprobs": [None]},
        {"tokens": ["a", "b"], "token_logprobs": [None, None]},
        {"tokens": ["a", "b"], "token_logprobs": [None, float("nan")]},
    ],
)
def test_a_server_that_does_not_tell_is_no_reader(told: object) -> None:
    body = {"choices": [{"text": "ab", "logprobs": told}], "usage": {"prompt_tokens": 2, "completion_tokens": 0}}
    with chat_server(lambda _: Reply(body=body)) as server:
        answer = ask(server, Judge("a", ("b",)), **SPOKEN)
    assert answer.failure is not None
    assert "does not tell the likelihood" in answer.failure.message
    assert server.asked.total() == 3


def test_plain_text_is_asked_as_it_is_and_answered_with_its_log_probability() -> None:
    told = {"text": " Paris", "finish_reason": "length", "logprobs": {"token_logprobs": [-0.5, -1.5]}}
    body = {"choices": [told], "usage": {"prompt_tokens": 3, "completion_tokens": 2}, "model": "m-1"}
    with chat_server(lambda _: Reply(body=body)) as server:
        sampling = Sampling(max_tokens=2, temperature=0.5, top_p=0.9, stop=("\n",), seed=4)
        answer = ask(server, Generate("The capital is", sampling, logprobs=True), dialect="completions")
    assert (answer.text, answer.finish, answer.logprob, answer.model) == (" Paris", "length", -1.0, "m-1")
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert server.bodies == [
        {
            "model": "m", "prompt": "The capital is", "max_tokens": 2, "temperature": 0.5, "top_p": 0.9, "stop": ["\n"],
            "seed": 4, "logprobs": 1,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(("reason", "text"), [("content_filter", ""), ("stop", None)])
def test_a_filtered_answer_is_empty_and_one_without_a_text_is_none(reason: str, text: str | None) -> None:
    body = {"choices": [{"finish_reason": reason}], "usage": {"prompt_tokens": 3, "completion_tokens": 0}}
    with chat_server(lambda _: Reply(body=body)) as server:
        assert ask(server, Generate("hello"), dialect="completions").text == text


def test_messages_are_refused_before_anything_is_sent() -> None:
    with (
        chat_server(lambda _: "yes") as server,
        pytest.raises(ConfigError, match=r"takes plain text, and the task's prompt is in messages"),
    ):
        ask(server, Generate((Message("user", "hello"),)), dialect="completions")
    assert not server.asked
