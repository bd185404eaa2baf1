"""Generation: a batch of prompts is continued token by token with a key-value cache, until each row has ended.

Our own loop rather than the library's, because every request has its own sampling, stop strings and length, rows leave
the batch when they are done, and it can be stopped between two steps. Prompts are padded on the left.
"""

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache

from evomerge.backends.local.resident import Causal
from evomerge.backends.local.sampling import Chooser
from evomerge.backends.text import Text
from evomerge.errors import CandidateError
from evomerge.exchange import Answer, Sampling, Usage

_FRAGMENTS = 8
"""Tokens that may stand in an ending without giving a character of their own."""


@dataclass(slots=True)
class Row:
    """One request: its place in the caller's batch, its prompt, and at most `limit` (1 or more) new tokens."""

    index: int
    prompt: tuple[int, ...]
    sampling: Sampling
    limit: int
    written: list[int] = field(default_factory=list[int])


def generate(
    causal: Causal, text: Text, rows: Sequence[Row], ends: AbstractSet[int], running: Callable[[], None]
) -> Iterator[tuple[int, Answer]]:
    """Yield (index, answer) of every row, as they end. `running` is called before each step, and may raise.

    Raises CandidateError when the model's logits hold a NaN.
    """
    batch = _Batch(causal, rows)
    writing: list[Row] = list(rows)
    while writing:
        running()
        tokens = batch.next()
        left: list[int] = []
        chosen = cast("list[int]", tokens.tolist())
        for place, (row, token) in enumerate(zip(writing, chosen, strict=True)):
            row.written.append(token)
            answer = _ended(row, text, ends)
            if answer is None:
                left.append(place)
            else:
                yield row.index, answer
        batch.extend(tokens, left)
        writing = [writing[place] for place in left]


def _ended(row: Row, text: Text, ends: AbstractSet[int]) -> Answer | None:
    """Return the row's answer if its last token ends it."""
    end, full = row.written[-1] in ends, len(row.written) >= row.limit
    if not (end or full or _may_stop(row, text)):
        return None
    said = text.decode(row.written[:-1] if end else row.written)
    stops = [place for stop in row.sampling.stop if stop and (place := said.find(stop)) >= 0]
    if not (end or full or stops):
        return None
    return Answer(
        text=said[: min(stops)] if stops else said,
        finish="stop" if end or stops else "length",
        usage=Usage(len(row.prompt), len(row.written)),
    )


def _may_stop(row: Row, text: Text) -> bool:
    """Look for stop strings among the last tokens, as many as the longest of them could have."""
    longest = max(map(len, row.sampling.stop), default=0)
    if not longest:
        return False
    tail = text.decode(row.written[-(longest + _FRAGMENTS) :])
    return any(stop in tail for stop in row.sampling.stop if stop)


class _Batch:
    """What the model is given at each step (tokens, mask, positions) and the cache of what it has read."""

    def __init__(self, causal: Causal, rows: Sequence[Row]) -> None:
        self._causal, device = causal, causal.device
        self._width = width = max(len(row.prompt) for row in rows)
        limits = [row.limit for row in rows]
        padding = torch.tensor([[width - len(row.prompt)] for row in rows], device=device)
        columns = torch.arange(width + max(limits), device=device)
        self._mask = (columns >= padding).long()
        self._padded = bool((padding > 0).any())
        self._tokens = torch.tensor([[0] * (width - len(row.prompt)) + list(row.prompt) for row in rows], device=device)
        self._positions = (columns[:width] - padding).clamp(min=0)
        self._cache = DynamicCache(config=causal.model.config)
        self._chooser = Chooser([row.sampling for row in rows], limits, device)

    def next(self) -> Tensor:
        """Read what was not read yet and return the next token of each row, int64 of shape (rows,)."""
        given: dict[str, Any] = {"input_ids": self._tokens, "past_key_values": self._cache, "use_cache": True}
        if self._padded:
            given["attention_mask"] = self._mask[:, : self._width]
        given |= {"position_ids": self._positions, "logits_to_keep": 1}
        logits = self._causal.logits(given)[:, -1].float()
        if bool(torch.isnan(logits).any()):
            raise CandidateError("the model's logits are not numbers (NaN): the recipe's weights are too large")
        return self._chooser.choose(logits)

    def extend(self, tokens: Tensor, left: Sequence[int]) -> None:
        """Go on with the rows `left` (places in the batch as it is), each longer by its token."""
        if not left:
            return
        self._tokens, self._positions, self._width = tokens[:, None], self._positions[:, -1:] + 1, self._width + 1
        if len(left) == len(tokens):
            return
        rows = torch.tensor(left, device=tokens.device)
        self._tokens, self._positions, self._mask = self._tokens[rows], self._positions[rows], self._mask[rows]
        self._chooser.keep(rows)
        cast(Any, self._cache).reorder_cache(rows)
