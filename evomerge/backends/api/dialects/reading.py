"""Reading JSON of strangers: nothing is taken for what it is not, and what is missing is told apart from what is empty.

Shared by the dialects; see `faults` for what becomes of a reply that cannot be read.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

from evomerge.backends.api.faults import Malformed
from evomerge.exchange import Usage

SHOWN = 300
"""Characters of a server's complaint that a sentence shows."""


def parsed(body: bytes) -> Mapping[str, Any]:
    """Return the JSON object of a body. Raises Malformed for anything else."""
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("its answer is not JSON, or cut off") from None
    if not isinstance(reply, dict):
        raise Malformed("its answer is no JSON object")
    return cast(Mapping[str, Any], reply)


def mapping(value: Any) -> Mapping[str, Any]:
    """Return an object, or an empty one for anything else."""
    return cast(Mapping[str, Any], value) if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """Return a list, or an empty one for anything else."""
    return cast(list[Any], value) if isinstance(value, list) else []


def count(value: Any) -> int | None:
    """Return a number of tokens, or None for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def number(value: Any) -> float | None:
    """Return a finite number, or None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def mean(values: Iterable[Any]) -> float | None:
    """Return the mean of log-probabilities, those that are no numbers left out; None where there are none."""
    found = [value for one in values if (value := number(one)) is not None]
    return math.fsum(found) / len(found) if found else None


def used(read: Any, written: Any, reasoning: Any = None) -> Usage:
    """Return what a reply says it used. Raises Malformed where it does not: without that nobody knows its cost."""
    known = count(read), count(written)
    if known[0] is None or known[1] is None:
        raise Malformed("its answer does not say how many tokens it took")
    return Usage(known[0], known[1], min(count(reasoning) or 0, known[1]))


def joined(content: Any) -> str:
    """Return the text of a content: nothing where it was filtered, and all its parts where it comes in parts."""
    if isinstance(content, str):
        return content
    return "".join(str(mapping(part).get("text") or "") for part in sequence(content))


def complaint_in(reply: Mapping[str, Any]) -> str:
    """Return what a reply says about an error, on one line: message, code and type, as far as they are there."""
    said = next((reply[key] for key in ("error", "message", "detail") if reply.get(key)), "")
    known = mapping(said)
    words = [str(part) for key in ("message", "code", "type") if (part := known.get(key))] or [str(said)]
    return " ".join(" / ".join(dict.fromkeys(words)).split())


def complaint_of(body: bytes) -> str:
    """Return what the body of a refusal says, on one line and not too long."""
    try:
        return complaint_in(parsed(body))[:SHOWN]
    except Malformed:
        return ""
