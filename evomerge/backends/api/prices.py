"""What requests cost, and what they may cost at most, from an endpoint's prices.

The job's prices win; a few list prices of well-known models are kept in `prices.yaml`, by host and model. Without the
model's tokenizer the length of a prompt is bounded by its bytes: no usual tokenizer has a token for less than one. The
true cost is some four times lower for English prompts, and lower still where answers are short.
"""

import functools
import math
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from evomerge.backends.api.settings import EndpointSettings
from evomerge.exchange import Generate, Request, Usage

TOKENS_A_MESSAGE = 16
"""Tokens by which a chat template frames a message, generously counted."""
BYTES_A_TOKEN = 8
"""Bytes of a prompt that are one token at the very least, of all that people write."""

Prices = tuple[float, float]
"""USD for a million tokens read and for a million written."""


def prices_of(endpoint: EndpointSettings) -> Prices | None:
    """Return the prices of an endpoint: those of the job, or the kept ones; None where nobody names any."""
    if endpoint.usd_per_mtok is not None:
        return endpoint.usd_per_mtok
    found = kept_prices()["hosts"].get(endpoint.host, {}).get(endpoint.model)
    return None if found is None else (float(found[0]), float(found[1]))


def is_kept(endpoint: EndpointSettings) -> bool:
    """Return whether the prices of an endpoint come from the kept list."""
    return endpoint.usd_per_mtok is None and prices_of(endpoint) is not None


@functools.cache
def kept_prices() -> dict[str, Any]:
    """Return the kept list: its `date`, and under `hosts` the prices of models by host."""
    import yaml

    return yaml.safe_load(files("evomerge.backends.api").joinpath("prices.yaml").read_text(encoding="utf-8"))


def tokens_at_most(endpoint: EndpointSettings, request: Request) -> tuple[int, int]:
    """Return how many tokens answering a request once may read and write at most."""
    read = _read_at_most(request)
    if isinstance(request, Generate):
        return read, endpoint.max_tokens or request.sampling.max_tokens
    judged = max(len(request.continuations), 1)
    return read * judged + sum(len(text.encode()) for text in request.continuations), judged


def tokens_at_least(request: Request) -> int:
    """Return how many tokens an answer to a request takes even where all goes well: read and written."""
    return -(-_prompt_bytes(request) // BYTES_A_TOKEN) + 1


def usd_at_most(endpoint: EndpointSettings, request: Request) -> float | None:
    """Return the highest cost of answering a request once, in USD; None where nobody knows the prices."""
    return usd_of(endpoint, *tokens_at_most(endpoint, request))


def cost_at_most(endpoint: EndpointSettings, requests: Iterable[Request]) -> float | None:
    """Return the highest cost of answering requests once each, in USD; None where nobody knows the prices."""
    costs = [usd_at_most(endpoint, request) for request in requests]
    known = [cost for cost in costs if cost is not None]
    return math.fsum(known) if len(known) == len(costs) and prices_of(endpoint) is not None else None


def usd_of(endpoint: EndpointSettings, read: int, written: int) -> float | None:
    """Return what so many tokens cost, in USD; None where nobody knows the prices."""
    prices = prices_of(endpoint)
    return None if prices is None else (read * prices[0] + written * prices[1]) / 1e6


def usd_of_usage(endpoint: EndpointSettings, usage: Usage) -> float | None:
    """Return what an answer cost by what its reply says was used, hidden reasoning with it, in USD."""
    return usd_of(endpoint, usage.prompt_tokens, usage.completion_tokens)


def _read_at_most(request: Request) -> int:
    """Return a bound of the tokens read: every byte of what is sent, and what frames each message."""
    turns = 1 if isinstance(request.prompt, str) else len(request.prompt)
    further = 0
    if isinstance(request, Generate):
        asked = request.sampling
        further = sum(len(text.encode()) + TOKENS_A_MESSAGE for text in (*asked.choices, asked.schema or ""))
    return _prompt_bytes(request) + turns * TOKENS_A_MESSAGE + further


def _prompt_bytes(request: Request) -> int:
    texts = [request.prompt] if isinstance(request.prompt, str) else [turn.content for turn in request.prompt]
    return sum(len(text.encode()) for text in texts)
