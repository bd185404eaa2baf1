"""Pieces of requests and replies that the services have in common. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from evomerge.backends.api.faults import Malformed
from evomerge.exchange import Answer, Message, Prompt, Sampling, Usage


def turns(prompt: Prompt) -> list[dict[str, str]] | None:
    """Return the messages of a chat as JSON has them, None for plain text."""
    if isinstance(prompt, str):
        return None
    return [{"role": turn.role, "content": turn.content} for turn in prompt if isinstance(turn, Message)]

def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Return a text up to the first of its stop strings, and whether one was there."""
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)

def answered(text: Any, sampling: Sampling, *, limited: bool, read: Any, written: Any) -> Answer:
    """Return an answer without its stop strings; `limited` is one that was cut at its longest.

    Raises Malformed where there is no text.
    """
    if not isinstance(text, str):
        raise Malformed("its answer holds no text")
    said, stopped = cut(text, sampling.stop)
    finish = "length" if limited and not stopped else "stop"
    return Answer(text=said, finish=finish, usage=Usage(_count(read), _count(written)))

def completed(reply: Mapping[str, Any], sampling: Sampling) -> Answer:
    """Return the answer of a completion, or of a chat completion, as OpenAI has them. Raises Malformed."""
    choice = first(reply.get("choices"))
    text, message = choice.get("text"), choice.get("message")
    if isinstance(message, dict):
        text = cast("Mapping[str, Any]", message).get("content") or ""
    usage = cast("Mapping[str, Any]", reply.get("usage") or {})
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return answered(text, sampling, limited=choice.get("finish_reason") == "length", read=read, written=written)

def first(found: Any) -> Mapping[str, Any]:
    """Return the first object of a list in a reply. Raises Malformed where there is none."""
    if isinstance(found, list) and found:
        one: Any = cast("list[Any]", found)[0]
        if isinstance(one, dict):
            return cast("Mapping[str, Any]", one)
    raise Malformed("its answer holds no choice")

def mapped(found: Any, otherwise: str) -> Mapping[str, Any]:
    """Return an object of a reply. Raises Malformed with a sentence where there is none."""
    if not isinstance(found, dict):
        raise Malformed(otherwise)
    return cast("Mapping[str, Any]", found)

def listed(found: Any, otherwise: str) -> list[Mapping[str, Any]]:
    """Return a list of objects of a reply. Raises Malformed with a sentence where there is none."""
    if not isinstance(found, list):
        raise Malformed(otherwise)
    return [mapped(one, otherwise) for one in cast("list[Any]", found)]

def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
