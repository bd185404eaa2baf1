"""The dialect of OpenAI's older completions of plain text, which servers of open models still speak.

Prompts are plain text: which template would make one of messages is not known here. With `likelihoods: echo` the server
reads prompt and continuation and tells how likely each token was: all continuations of a prompt in one request.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate
from typing import Any

from evomerge.backends.api.dialects import openai_style as style
from evomerge.backends.api.dialects.protocol import Way
from evomerge.backends.api.dialects.reading import complaint_in, count, mapping, mean, number, sequence
from evomerge.backends.api.dialects.registry import dialect
from evomerge.backends.api.faults import Malformed
from evomerge.backends.api.settings import EndpointSettings
from evomerge.errors import ConfigError
from evomerge.exchange import Answer, Failure, Generate, Judge, Likelihood, Request


@dialect("completions")
class OpenAICompletions:
    """OpenAI's completions of plain text."""

    path = "/completions"
    ways: frozenset[Way] = frozenset({"echo"})

    def headers(self, key: str | None) -> Mapping[str, str]:
        """Return the header of the key."""
        return style.bearer(key)

    def body(self, endpoint: EndpointSettings, request: Request) -> dict[str, Any]:
        """Return the JSON that asks an endpoint. Raises ConfigError for a prompt in messages."""
        if not isinstance(request.prompt, str):
            raise ConfigError(
                f"{endpoint.model} at {endpoint.host} is asked in the dialect completions, which takes plain text, and "
                "the task's prompt is in messages; write it as a text, or use the dialect openai"
            )
        if isinstance(request, Judge):
            prompts = [request.prompt + continuation for continuation in request.continuations]
            read = {"prompt": prompts, "max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 1}
            return style.asked(endpoint, {"model": endpoint.model, **read})
        logprobs = {"logprobs": 1} if request.logprobs and endpoint.logprobs else {}
        body = {"model": endpoint.model, "prompt": request.prompt, **style.sampling_of(endpoint, request), **logprobs}
        return style.asked(endpoint, body)

    def answer(self, endpoint: EndpointSettings, request: Request, reply: Mapping[str, Any]) -> Answer:
        """Return the answer that a reply holds. Raises Malformed for one that holds none."""
        usage, model = style.usage_in(reply), style.model_in(reply)
        if isinstance(request, Judge):
            found = _judged(request, reply)
            if isinstance(found, Failure):
                return Answer(failure=found, usage=usage, model=model)
            return Answer(likelihoods=found, usage=usage, model=model)
        return _written(endpoint, request, style.choice_in(reply), Answer(usage=usage, model=model))

    def complaint(self, reply: Mapping[str, Any]) -> str:
        """Return what a reply says about an error."""
        return complaint_in(reply)


def _written(endpoint: EndpointSettings, request: Generate, choice: Mapping[str, Any], answer: Answer) -> Answer:
    """Return an answer with the text of a choice."""
    text = choice.get("text")
    if not isinstance(text, str):
        if choice.get("finish_reason") != "content_filter":
            raise Malformed("its answer holds no text")
        text = ""
    told = sequence(mapping(choice.get("logprobs")).get("token_logprobs"))
    return replace(
        answer,
        text=style.unpacked(endpoint, request.sampling, text),
        finish="length" if choice.get("finish_reason") == "length" else "stop",
        logprob=mean(told) if request.logprobs else None,
    )


def _judged(request: Judge, reply: Mapping[str, Any]) -> tuple[Likelihood, ...] | Failure:
    """Return how likely each continuation is after the prompt; a Failure where nothing stands before one."""
    if not request.prompt:
        return Failure("prompt", "nothing stands before the continuation; give the task a prompt")
    choices = [mapping(choice) for choice in sequence(reply.get("choices"))]
    by_index = {choice.get("index", place): choice for place, choice in enumerate(choices)}
    wanted = range(len(request.continuations))
    if set(by_index) != set(wanted):
        raise Malformed(f"its answer judges {len(choices)} texts of {len(wanted)}")
    start = len(str(request.prompt))
    return tuple(
        _likelihood(mapping(by_index[place].get("logprobs")), start, start + len(request.continuations[place]))
        for place in wanted
    )


def _likelihood(told: Mapping[str, Any], start: int, end: int) -> Likelihood:
    """Return how likely the characters from `start` to `end` of a text that was read are.

    A token that reaches over the beginning counts to the continuation, as it does for models in this process; one that
    was written after the text does not. Raises Malformed where the tokens do not reach so far.
    """
    tokens = [str(token) for token in sequence(told.get("tokens"))]
    logprobs = [number(logprob) for logprob in sequence(told.get("token_logprobs"))]
    begins = _begins(told, tokens)
    ends = [*begins[1:], max(end, begins[-1] + 1)] if begins else []
    inside = [place for place, begin in enumerate(begins) if ends[place] > start and begin < end]
    found = [logprobs[place] for place in inside if place < len(logprobs)]
    known = [logprob for logprob in found if logprob is not None]
    if not known or len(known) < len(inside):
        raise Malformed("its answer does not tell the likelihood of the text it was given")
    return Likelihood(math.fsum(known), len(known))


def _begins(told: Mapping[str, Any], tokens: list[str]) -> list[int]:
    """Return where each token begins in the text, in characters; added up from the tokens where that is not told."""
    offsets = [count(offset) for offset in sequence(told.get("text_offset"))]
    known = [offset for offset in offsets if offset is not None]
    if len(known) == len(tokens):
        return known
    return list(accumulate((len(token) for token in tokens[:-1]), initial=0)) if tokens else []
