"""The dialect of Anthropic's messages: the system's turns stand apart, and every request bounds its answer.

There are no seeds and no log-probabilities in it. An answer that must fit a schema, or be one of some choices, is asked
for as the input of the only tool that there is.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evomerge.backends.api.dialects.openai_style import asked, chosen, schema_of
from evomerge.backends.api.dialects.protocol import Way
from evomerge.backends.api.dialects.reading import complaint_in, count, joined, mapping, sequence, used
from evomerge.backends.api.dialects.registry import dialect
from evomerge.backends.api.faults import Malformed
from evomerge.backends.api.settings import EndpointSettings
from evomerge.errors import ConfigError
from evomerge.exchange import Answer, Generate, Message, Request

VERSION = "2023-06-01"
"""The version of the API that this is written for."""
_TOOL = "answer"


@dialect("anthropic")
class AnthropicMessages:
    """Anthropic's messages."""

    path = "/messages"
    ways: frozenset[Way] = frozenset()

    def headers(self, key: str | None) -> Mapping[str, str]:
        """Return the headers of the version and the key."""
        return {"anthropic-version": VERSION, **({} if key is None else {"x-api-key": key})}

    def body(self, endpoint: EndpointSettings, request: Request) -> dict[str, Any]:
        """Return the JSON that asks an endpoint. Raises ConfigError for likelihoods."""
        if not isinstance(request, Generate):
            raise ConfigError("the dialect anthropic tells no likelihoods; score by a generated answer")
        sampling = request.sampling
        turns = (Message("user", request.prompt),) if isinstance(request.prompt, str) else request.prompt
        body: dict[str, Any] = {
            "model": endpoint.model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in turns if turn.role != "system"],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
        }
        if system := "\n\n".join(turn.content for turn in turns if turn.role == "system"):
            body["system"] = system
        if sampling.top_p != 1:
            body["top_p"] = sampling.top_p
        if sampling.stop:
            body["stop_sequences"] = list(sampling.stop)
        if endpoint.structured is not None and (schema := schema_of(sampling)) is not None:
            body["tools"] = [{"name": _TOOL, "description": "Give the answer.", "input_schema": schema}]
            body["tool_choice"] = {"type": "tool", "name": _TOOL}
        return asked(endpoint, body)

    def answer(self, endpoint: EndpointSettings, request: Request, reply: Mapping[str, Any]) -> Answer:
        """Return the answer that a reply holds. Raises Malformed for one that holds none."""
        del endpoint
        if not isinstance(reply.get("content"), list) or not isinstance(request, Generate):
            raise Malformed("its answer holds no content")
        told = mapping(reply.get("usage"))
        usage = used(told.get("input_tokens"), told.get("output_tokens"))
        kept = [count(told.get(f"cache_{way}_input_tokens")) or 0 for way in ("creation", "read")]
        return Answer(
            text=_text(request, reply["content"]),
            finish="length" if reply.get("stop_reason") == "max_tokens" else "stop",
            usage=replace(usage, prompt_tokens=usage.prompt_tokens + sum(kept)),
            model=str(reply.get("model") or ""),
        )

    def complaint(self, reply: Mapping[str, Any]) -> str:
        """Return what a reply says about an error."""
        return complaint_in(reply)


def _text(request: Generate, content: Any) -> str:
    """Return the text of a content, or what the tool was given; thinking is left out."""
    parts = [mapping(part) for part in sequence(content)]
    given = next((part["input"] for part in parts if part.get("type") == "tool_use" and "input" in part), None)
    if given is not None:
        return chosen(request.sampling, json.dumps(given, ensure_ascii=False))
    return joined([part for part in parts if part.get("type") == "text"])
