"""What clients send and get: the bodies of OpenAI's chat completions and completions. Pure.

Read strictly: what this server does not do is refused by name, and never silently left out, for an answer that ignores
half of a request looks like one that does not. Keys that change no answer are accepted.
"""

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from evomerge.exchange import Message, Prompt, Sampling
from evomerge.serve.answering import Combined, Question
from evomerge.serve.refusals import Refusal, invalid, unsupported

Kind = Literal["chat", "text"]

_HARMLESS = frozenset({
    "parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier", "store",
    "user",
})  # fmt: skip
"""Keys that change no answer of ours, whatever stands there."""

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "audio": (), "best_of": (1,), "echo": (False,), "frequency_penalty": (0,), "function_call": ("none", "auto"),
    "functions": ([],), "logit_bias": ({},), "logprobs": (False,), "modalities": (["text"],), "n": (1,),
    "prediction": (), "presence_penalty": (0,), "reasoning_effort": (), "response_format": ({"type": "text"},),
    "suffix": ("",), "tool_choice": ("none", "auto"), "tools": ([],), "top_logprobs": (0,), "verbosity": (),
    "web_search_options": (),
}  # fmt: skip
"""Keys of OpenAI's API that this server does not do, with the values that ask for nothing (as null does)."""

_WHY = {
    "n": "one answer is made of those of all members; ask again for another",
    "logprobs": "an answer made of several has no log-probabilities of its own",
    "top_logprobs": "an answer made of several has no log-probabilities of its own",
    "tools": "tools are not called here",
    "functions": "functions are not called here",
}


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["text"]
    text: str


class _Turn(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]
    name: str | None = None

    def message(self) -> Message:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, text)


class _StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    include_usage: bool = False


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    model: str
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: int | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None


class _ChatBody(_Body):
    messages: Annotated[list[_Turn], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None


class _TextBody(_Body):
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]


@dataclass(frozen=True, slots=True)
class Asking:
    """A request that was read: the question, and how the answer is to be sent."""

    kind: Kind
    model: str
    question: Question
    stream: bool = False
    usage_in_stream: bool = False


def read(kind: Kind, raw: bytes, default: Sampling) -> Asking:
    """Return what a body asks; `default` is the sampling of what it leaves out. Raises Refusal (400)."""
    data = _data(raw)
    for key in data:
        _check_key(key, data[key])
    asked = {key: value for key, value in data.items() if key not in _HARMLESS and key not in _NEUTRAL}
    try:
        body = _ChatBody.model_validate(asked) if kind == "chat" else _TextBody.model_validate(asked)
    except ValidationError as error:
        raise _problem(error) from None
    options = body.stream_options or _StreamOptions()
    question = Question(_prompt(body), _sampling(body, default), body.metadata or {})
    return Asking(kind, body.model, question, bool(body.stream), options.include_usage)


def _data(raw: bytes) -> Mapping[str, Any]:
    try:
        data = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise invalid(f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise invalid("the body is no JSON object", code="invalid_json")
    return cast(Mapping[str, Any], data)


def _check_key(key: str, value: Any) -> None:
    if key in _NEUTRAL and not (value is None or value in _NEUTRAL[key]):
        raise unsupported(f"'{key}' is not supported: {_WHY.get(key, 'leave it out')}", key)
    if key in _HARMLESS or key in _NEUTRAL or key in _ChatBody.model_fields or key in _TextBody.model_fields:
        return
    raise invalid(f"unknown key '{key[:100]}'; leave it out", key[:100], "unknown_parameter")


def _problem(error: ValidationError) -> Refusal:
    problem = error.errors(include_url=False, include_input=False)[0]
    words = [str(part) for part in problem["loc"] if not str(part).startswith(("list[", "_"))]
    where = ".".join(word for word in words if word != "str")
    if problem["type"] == "missing":
        return invalid(f"'{where}' is missing", where, "missing_required_parameter")
    if where.startswith("prompt"):
        return invalid("'prompt' is one text here; ask one prompt a request", "prompt")
    message = problem["msg"]
    return invalid(f"{where}: {message[:1].lower()}{message[1:]}", where)


def _prompt(body: _Body) -> Prompt:
    if isinstance(body, _ChatBody):
        return tuple(turn.message() for turn in body.messages)
    prompt = cast(_TextBody, body).prompt
    return prompt if isinstance(prompt, str) else prompt[0]


def _sampling(body: _Body, default: Sampling) -> Sampling:
    longest = body.max_completion_tokens if isinstance(body, _ChatBody) else None
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return replace(
        default,
        max_tokens=longest or body.max_tokens or default.max_tokens,
        temperature=default.temperature if body.temperature is None else body.temperature,
        top_p=body.top_p or default.top_p,
        stop=default.stop if body.stop is None else tuple(text for text in stop if text),
        seed=default.seed if body.seed is None else body.seed,
    )


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer on its way to a client, as a body or as the events of a stream."""

    asking: Asking
    model: str
    fingerprint: str
    combined: Combined
    created: int = field(default_factory=lambda: int(time.time()))
    number: str = field(default_factory=lambda: uuid.uuid4().hex)

    def body(self) -> dict[str, Any]:
        """Return the whole answer."""
        text, finish = self.combined.text, self.combined.finish
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": None}
        if self.asking.kind == "chat":
            choice["message"] = {"role": "assistant", "content": text, "refusal": None}
            return self._head("chat.completion") | {"choices": [choice], "usage": self._usage()}
        return self._head("text_completion") | {"choices": [choice | {"text": text}], "usage": self._usage()}

    def events(self) -> Iterator[bytes]:
        """Yield the answer as server-sent events, the last of them `[DONE]`.

        An answer is only there when it has been combined, so its text comes in one piece.
        """
        with_usage = self.asking.usage_in_stream
        for choice in self._choices():
            yield _event(self._chunk() | {"choices": [choice]} | ({"usage": None} if with_usage else {}))
        if with_usage:
            yield _event(self._chunk() | {"choices": [], "usage": self._usage()})
        yield b"data: [DONE]\n\n"

    def _choices(self) -> Iterator[dict[str, Any]]:
        first: dict[str, Any] = {"index": 0, "finish_reason": None, "logprobs": None}
        last = first | {"finish_reason": self.combined.finish}
        if self.asking.kind == "chat":
            yield first | {"delta": {"role": "assistant", "content": ""}}
            yield first | {"delta": {"content": self.combined.text}}
            yield last | {"delta": {}}
        else:
            yield first | {"text": self.combined.text}
            yield last | {"text": ""}

    def _chunk(self) -> dict[str, Any]:
        return self._head("chat.completion.chunk" if self.asking.kind == "chat" else "text_completion")

    def _head(self, what: str) -> dict[str, Any]:
        prefix = "chatcmpl" if self.asking.kind == "chat" else "cmpl"
        return {
            "id": f"{prefix}-{self.number}", "object": what, "created": self.created, "model": self.model,
            "system_fingerprint": self.fingerprint,
        }  # fmt: skip

    def _usage(self) -> dict[str, Any]:
        used = self.combined.usage
        return {
            "prompt_tokens": used.prompt_tokens,
            "completion_tokens": used.completion_tokens,
            "total_tokens": used.prompt_tokens + used.completion_tokens,
        }


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
