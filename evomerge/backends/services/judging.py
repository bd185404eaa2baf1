"""Likelihoods of given texts, from a service's own reading of prompt and continuation.

A continuation begins at the first token in which the two together differ from the prompt alone, as for the embedded
backend. The prompt's own tokens are asked once: no adapter changes them.
"""

import math
from collections.abc import Awaitable, Callable, Sequence

from evomerge.errors import CandidateError, ConfigError
from evomerge.exchange import Answer, Failure, Judge, Likelihood, Usage

Read = Sequence[tuple[int, float | None]]
"""The tokens of a text with their log-probabilities, None where there is none (that of the first)."""
_REMEMBERED = 1 << 16


class Prompts:
    """The tokens of prompts, as `read` has them, remembered."""

    def __init__(self, read: Callable[[str], Awaitable[Sequence[int]]]) -> None:
        self._read = read
        self._known: dict[str, Sequence[int]] = {}

    async def tokens(self, prompt: str) -> Sequence[int]:
        """Return a prompt's tokens."""
        if prompt not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[prompt] = await self._read(prompt)
        return self._known[prompt]


async def judged(request: Judge, prompts: Prompts, read: Callable[[str], Awaitable[Read]]) -> Answer:
    """Return the likelihoods of continuations; `read` reads a text with the held merge.

    Raises ConfigError for a chat, whose text only the service knows, and CandidateError for likelihoods that are no
    numbers.
    """
    if not isinstance(request.prompt, str):
        raise ConfigError("a service tells likelihoods after plain text only; give the task a text as its prompt")
    alone, found, tokens = await prompts.tokens(request.prompt), list[Likelihood](), 0
    for continuation in request.continuations:
        whole = await read(request.prompt + continuation)
        tokens += len(whole)
        said = [logprob for _, logprob in whole[_begin(whole, alone) :]]
        if None in said:
            return Answer(failure=Failure("prompt", "nothing stands before the continuation; give the task a prompt"))
        total = math.fsum(logprob for logprob in said if logprob is not None)
        if not math.isfinite(total):
            raise CandidateError("the service's likelihoods are not finite numbers: the weights are too large")
        found.append(Likelihood(total, len(said)))
    return Answer(likelihoods=tuple(found), usage=Usage(tokens, 0))


def _begin(whole: Read, alone: Sequence[int]) -> int:
    pairs = zip(alone, whole, strict=False)
    return min(next((at for at, (one, (two, _)) in enumerate(pairs) if one != two), len(alone)), len(whole))
