"""The dialect of OpenAI's chat completions, which most servers speak.

A prompt that is plain text becomes one message of the user. A reply that was cut, filtered or left empty is an answer;
only one that is not in the dialect at all is malformed. Of the likelihood of a given text a chat tells only this much:
which tokens might have come first, so continuations are judged by their first token.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evomerge.backends.api.dialects import openai_style as style
from evomerge.backends.api.dialects.protocol import Way
from evomerge.backends.api.dialects.reading import complaint_in, joined, mapping, mean, number, sequence
from evomerge.backends.api.dialects.registry import dialect
from evomerge.backends.api.faults import Malformed
from evomerge.backends.api.settings import EndpointSettings
from evomerge.exchange import Answer, Failure, Generate, Judge, Likelihood, Prompt, Request

LISTED = 20
"""Tokens that are asked for with their log-probabilities: the most that OpenAI's API lists."""
UNLISTED = 1.0
"""A choice whose first token is not listed is taken to be so much below the last that is (nats)."""


@dialect("openai")
class OpenAIChat:
    """OpenAI's chat completions."""

    path = "/chat/completions"
    ways: frozenset[Way] = frozenset({"top_logprobs"})

    def headers(self, key: str | None) -> Mapping[str, str]:
        """Return the header of the key."""
        return style.bearer(key)

    def body(self, endpoint: EndpointSettings, request: Request) -> dict[str, Any]:
        """Return the JSON that asks an endpoint."""
        body: dict[str, Any] = {"model": endpoint.model, "messages": messages_of(request.prompt)}
        if isinstance(request, Judge):
            first = {"max_tokens": 1, "temperature": 0.0, "logprobs": True, "top_logprobs": LISTED}
            return style.asked(endpoint, {**body, **first})
        logprobs = {"logprobs": True} if request.logprobs and endpoint.logprobs else {}
        return style.asked(endpoint, {**body, **style.sampling_of(endpoint, request), **logprobs})

    def answer(self, endpoint: EndpointSettings, request: Request, reply: Mapping[str, Any]) -> Answer:
        """Return the answer that a reply holds. Raises Malformed for one that holds none."""
        choice = style.choice_in(reply)
        usage, model = style.usage_in(reply), style.model_in(reply)
        if isinstance(request, Judge):
            found = judged(request.continuations, _tokens(choice))
            if isinstance(found, Failure):
                return Answer(failure=found, usage=usage, model=model)
            return Answer(likelihoods=found, usage=usage, model=model)
        return Answer(
            text=style.unpacked(endpoint, request.sampling, _text(choice)),
            finish="length" if choice.get("finish_reason") == "length" else "stop",
            usage=usage,
            logprob=mean(token.get("logprob") for token in _tokens(choice)) if request.logprobs else None,
            model=model,
        )

    def complaint(self, reply: Mapping[str, Any]) -> str:
        """Return what a reply says about an error."""
        return complaint_in(reply)


def messages_of(prompt: Prompt) -> list[dict[str, str]]:
    """Return a prompt as messages."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [{"role": turn.role, "content": turn.content} for turn in prompt]


def judged(continuations: Sequence[str], tokens: Sequence[Mapping[str, Any]]) -> tuple[Likelihood, ...] | Failure:
    """Return how likely each continuation is, by the tokens that might have come first.

    A listed token counts for each continuation that begins with it, white space around both left aside. One of which no
    beginning is listed is `UNLISTED` below the last that is. Two whose likeliest beginning is the same token cannot be
    told apart: that is a Failure. Raises Malformed where nothing is listed.
    """
    listed = _listed(tokens)
    floor = min(logprob for _, logprob in listed) - UNLISTED
    found: list[Likelihood] = []
    heads: list[str] = []
    for continuation in continuations:
        whole = continuation.strip()
        begun = [(logprob, token) for token, logprob in listed if token and whole.startswith(token)]
        heads += [max(begun)[1]] if begun else []
        found.append(Likelihood(_sum([logprob for logprob, _ in begun]) if begun else floor, 1))
    twice = next((head for head in heads if heads.count(head) > 1), None)
    if twice is not None:
        return Failure("likelihoods", f"two choices begin with {twice!r}, and only first tokens are told; use letters")
    return tuple(found)


def _listed(tokens: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Return the tokens that might have come first, without white space around them, with their log-probabilities."""
    first = tokens[0] if tokens else {}
    entries = [mapping(entry) for entry in sequence(first.get("top_logprobs"))]
    known = [(str(entry.get("token", "")).strip(), number(entry.get("logprob"))) for entry in entries]
    listed = [(token, logprob) for token, logprob in known if logprob is not None]
    if not listed:
        raise Malformed("its answer tells no log-probabilities")
    return listed


def _sum(logprobs: Sequence[float]) -> float:
    """Return the log of the sum of probabilities, of which none is more than certain."""
    most = max(logprobs)
    return min(most + math.log(math.fsum(math.exp(one - most) for one in logprobs)), 0.0)


def _tokens(choice: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [mapping(token) for token in sequence(mapping(choice.get("logprobs")).get("content"))]


def _text(choice: Mapping[str, Any]) -> str:
    """Return the text of a choice: nothing where it was filtered or refused."""
    message = mapping(choice.get("message"))
    if "content" in message:
        return joined(message["content"])
    if choice.get("finish_reason") == "content_filter" or "refusal" in message:
        return ""
    raise Malformed("its answer holds no message")
