"""What OpenAI's two dialects have in common: how sampling is asked for, and how replies are read. Pure."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from evomerge.backends.api.dialects.reading import count, mapping, sequence, used
from evomerge.backends.api.faults import Malformed
from evomerge.backends.api.settings import EndpointSettings
from evomerge.errors import ConfigError
from evomerge.exchange import Generate, Sampling, Usage

_ONE_OF = "answer"
"""The only key of the object that holds an answer which is one of some choices."""


def bearer(key: str | None) -> Mapping[str, str]:
    """Return the header of a key."""
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def asked(endpoint: EndpointSettings, body: dict[str, Any]) -> dict[str, Any]:
    """Return a body with the further keys of an endpoint; null leaves one out."""
    return {key: value for key, value in {**body, **endpoint.request}.items() if value is not None}


def sampling_of(endpoint: EndpointSettings, request: Generate) -> dict[str, Any]:
    """Return the keys that say how an answer is generated."""
    sampling = request.sampling
    keys: dict[str, Any] = {"max_tokens": sampling.max_tokens, "temperature": sampling.temperature}
    if sampling.top_p != 1:
        keys["top_p"] = sampling.top_p
    if sampling.stop:
        keys["stop"] = list(sampling.stop)
    if (seed := seed_of(request)) is not None:
        keys["seed"] = seed
    return {**keys, **_structure(endpoint, sampling)}


def seed_of(request: Generate) -> int | None:
    """Return the seed of a sample (31 bits): the first has the request's own, each further one of its own."""
    if request.sample == 0:
        return request.sampling.seed
    drawn = hashlib.sha256(f"sample {request.sample} of {request.sampling.seed}".encode()).digest()
    return int.from_bytes(drawn[:4], "big") >> 1


def schema_of(sampling: Sampling) -> dict[str, Any] | None:
    """Return the schema that an answer must fit, an object in which one of the choices stands; None for any answer.

    Raises ConfigError for a schema that is no JSON object.
    """
    if sampling.choices:
        properties = {_ONE_OF: {"type": "string", "enum": list(sampling.choices)}}
        return {"type": "object", "properties": properties, "required": [_ONE_OF], "additionalProperties": False}
    if sampling.schema is None:
        return None
    try:
        return dict(json.loads(sampling.schema))
    except (ValueError, TypeError, RecursionError):
        raise ConfigError("the schema that an answer must fit is no JSON object; write one, as JSON") from None


def chosen(sampling: Sampling, text: str) -> str:
    """Return the choice that stands in an answer that fits `schema_of`; any other answer as it is."""
    if not sampling.choices:
        return text
    try:
        found = mapping(json.loads(text)).get(_ONE_OF)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, str) else text


def unpacked(endpoint: EndpointSettings, sampling: Sampling, text: str) -> str:
    """Return the text of an answer, out of the object that a choice was asked for in."""
    return chosen(sampling, text) if endpoint.structured == "response_format" else text


def _structure(endpoint: EndpointSettings, sampling: Sampling) -> dict[str, Any]:
    """Return the keys that hold an answer to choices or a schema, as far as the endpoint can be told to."""
    schema = schema_of(sampling)
    if schema is None or endpoint.structured is None:
        return {}
    if endpoint.structured == "structured_outputs":
        held = {"choice": list(sampling.choices)} if sampling.choices else {"json": schema}
        return {"structured_outputs": held}
    named = {"name": "answer", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def choice_in(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the first choice of a reply. Raises Malformed where there is none, or where it was given up."""
    choices = sequence(reply.get("choices"))
    if not choices:
        raise Malformed("its answer holds no choice")
    first = mapping(choices[0])
    if first.get("finish_reason") in ("error", "abort"):
        raise Malformed("it gave up on its answer")
    return first


def usage_in(reply: Mapping[str, Any]) -> Usage:
    """Return what a reply used.

    Tokens of the total that are neither read nor written are hidden reasoning, and billed.
    """
    told = mapping(reply.get("usage"))
    details = mapping(told.get("completion_tokens_details"))
    usage = used(told.get("prompt_tokens"), told.get("completion_tokens"), details.get("reasoning_tokens"))
    hidden = (count(told.get("total_tokens")) or 0) - usage.prompt_tokens - usage.completion_tokens
    if hidden <= 0:
        return usage
    return Usage(usage.prompt_tokens, usage.completion_tokens + hidden, usage.reasoning_tokens + hidden)


def model_in(reply: Mapping[str, Any]) -> str:
    """Return the model and its fingerprint, as far as a reply names them."""
    return " ".join(str(part) for key in ("model", "system_fingerprint") if (part := reply.get(key)))
