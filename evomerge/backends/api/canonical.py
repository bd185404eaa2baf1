"""Requests and answers as JSON: one request always the same text, and back only what is an answer beyond doubt. Pure.

The text of a request names neither dialect nor key, so that what was asked in one dialect is known in another.
"""

import hashlib
import json
from dataclasses import asdict
from typing import Any, cast

from evomerge.exchange import Answer, Generate, Likelihood, Request, Usage

VERSION = 1
"""Of both texts; a change of it makes every key another one."""


def canonical(request: Request) -> str:
    """Return a request as JSON that is the same for the same request, of every process and machine."""
    prompt = request.prompt if isinstance(request.prompt, str) else [[turn.role, turn.content] for turn in request.prompt]
    asked: dict[str, Any] = {"version": VERSION, "prompt": prompt}
    if isinstance(request, Generate):
        sampling = asdict(request.sampling)
        asked |= {"generate": sampling, "sample": request.sample, "logprobs": request.logprobs}
    else:
        asked |= {"judge": list(request.continuations)}
    return _dumps(asked)


def key_of(endpoint: str, request: Request) -> str:
    """Return the key (64 hexadecimal digits) of a request to the endpoint with a fingerprint."""
    return hashlib.sha256(f"{endpoint}\n{canonical(request)}".encode()).hexdigest()


def to_text(answer: Answer) -> str:
    """Return an answer as JSON."""
    return _dumps(
        {
            "version": VERSION,
            "text": answer.text,
            "likelihoods": [[one.logprob, one.tokens] for one in answer.likelihoods],
            "finish": answer.finish,
            "usage": asdict(answer.usage),
            "logprob": answer.logprob,
            "usd": answer.usd,
            "seconds": answer.seconds,
            "model": answer.model,
        }
    )


def from_text(text: str) -> Answer | None:
    """Return the answer that `to_text` wrote, marked `cached`, or None for any other text."""
    try:
        kept = cast(dict[str, Any], json.loads(text))
        if kept.pop("version") != VERSION:
            return None
        likelihoods = tuple(Likelihood(float(logprob), int(tokens)) for logprob, tokens in kept.pop("likelihoods"))
        usage = Usage(**{name: int(count) for name, count in kept.pop("usage").items()})
        answer = Answer(**kept, likelihoods=likelihoods, usage=usage, cached=True)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return answer if _is_sound(answer) else None


def _is_sound(answer: Answer) -> bool:
    """Return whether the parts of an answer are of the types that they should be."""
    return (
        (answer.text is None or isinstance(answer.text, str))
        and answer.finish in {"stop", "length"}
        and (answer.logprob is None or isinstance(answer.logprob, float | int))
        and all(isinstance(number, float | int) for number in (answer.usd, answer.seconds))
        and isinstance(answer.model, str)
        and min(asdict(answer.usage).values()) >= 0
        and answer.failure is None
    )


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
