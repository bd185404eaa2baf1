"""The dialect of OpenAI's chat completions: from a request to JSON, and from JSON to an answer. Pure.

A prompt that is plain text becomes one message of the user. A reply that was cut, filtered or left empty is an answer;
only one that is not in the dialect at all is malformed.
"""

import json
from collections.abc import Mapping
from typing import Any, cast

from evomerge.backends.api.faults import Malformed
from evomerge.exchange import Answer, Generate, Usage

PATH = "/chat/completions"
_SHOWN = 300


def body_of(model: str, request: Generate, further: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON that asks `model` a request, with `further` keys; None leaves one out."""
    turns = (
        [("user", request.prompt)] if isinstance(request.prompt, str) else [(m.role, m.content) for m in request.prompt]
    )
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": role, "content": content} for role, content in turns],
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
    }
    if sampling.top_p != 1:
        body["top_p"] = sampling.top_p
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    return {key: value for key, value in {**body, **further}.items() if value is not None}


def answer_of(body: bytes) -> Answer:
    """Return the answer that a successful reply holds. Raises Malformed for one that holds none."""
    reply = _parsed(body)
    choices = reply.get("choices")
    first = _map(cast(list[Any], choices)[0] if isinstance(choices, list) and choices else None)
    message = _map(first.get("message"))
    if "content" not in message:
        raise Malformed("its answer holds no message")
    usage = _map(reply.get("usage"))
    return Answer(
        text=_text(message["content"]),
        finish="length" if first.get("finish_reason") == "length" else "stop",
        usage=Usage(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))),
    )


def complaint_of(body: bytes) -> str:
    """Return what the server says about an error, on one line and not too long."""
    try:
        said = _parsed(body).get("error", "")
    except Malformed:
        return ""
    words = [str(part) for key in ("message", "code") if (part := _map(said).get(key))] or [str(said)]
    return " ".join(" / ".join(words).split())[:_SHOWN]


def _parsed(body: bytes) -> Mapping[str, Any]:
    try:
        reply = json.loads(body)
    except ValueError:
        raise Malformed("its answer is not JSON, or cut off") from None
    if not isinstance(reply, dict):
        raise Malformed("its answer is no JSON object")
    return cast(Mapping[str, Any], reply)


def _map(value: Any) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], value) if isinstance(value, dict) else {}


def _text(content: Any) -> str:
    """Return the text of a message: nothing where it was filtered, and all its parts where it comes in parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(_map(part).get("text") or "") for part in cast(list[Any], content))
    return ""


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
