"""What requests may cost at most, from an endpoint's prices. Pure.

Without the model's tokenizer the length of a prompt is bounded by its bytes: no usual tokenizer has a token for less
than one. The true cost is some four times lower for English prompts, and lower still where answers are short.
"""

from collections.abc import Iterable

from evomerge.backends.api.settings import EndpointSettings
from evomerge.exchange import Generate, Request

TOKENS_A_MESSAGE = 16
"""Tokens by which a chat template frames a message, generously counted."""


def cost_at_most(endpoint: EndpointSettings, requests: Iterable[Request]) -> float | None:
    """Return the highest cost of answering requests once, in USD; None where the endpoint has no prices."""
    if endpoint.usd_per_mtok is None:
        return None
    read = written = 0
    for request in requests:
        if isinstance(request, Generate):
            texts = [request.prompt] if isinstance(request.prompt, str) else [m.content for m in request.prompt]
            read += sum(len(text.encode()) + TOKENS_A_MESSAGE for text in texts)
            written += endpoint.max_tokens or request.sampling.max_tokens
    return (read * endpoint.usd_per_mtok[0] + written * endpoint.usd_per_mtok[1]) / 1e6
