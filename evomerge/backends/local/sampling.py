"""Choosing the next token of every row: the most likely one at temperature 0, else one drawn from the likely ones.

Each row has its own uniform numbers, drawn from its seed before it starts, so a sampled answer does not depend on what
else is in the batch, and no global random state is read or written.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from evomerge.exchange import Sampling


class Chooser:
    """The sampling of a batch; `keep` follows the rows that are still being written."""

    def __init__(self, samplings: Sequence[Sampling], limits: Sequence[int], device: torch.device) -> None:
        """Prepare at most `limits` tokens for each row. A request without a seed has the seed 0."""
        self._step = 0
        self._greedy = all(sampling.temperature <= 0 for sampling in samplings)
        if self._greedy:
            return
        draws = torch.zeros(len(samplings), max(limits))
        for row, (sampling, limit) in enumerate(zip(samplings, limits, strict=True)):
            draws[row, :limit] = torch.rand(limit, generator=torch.Generator().manual_seed(sampling.seed or 0))
        self._draws = draws.to(device)
        self._temperature = torch.tensor([[sampling.temperature] for sampling in samplings], device=device)
        self._top_p = torch.tensor([[sampling.top_p] for sampling in samplings], device=device)

    def choose(self, logits: Tensor) -> Tensor:
        """Return the next token of each row, int64 of shape (rows,), from float32 logits (rows, vocabulary)."""
        likeliest = logits.argmax(-1)
        if self._greedy:
            return likeliest
        sampled = self._sample(logits, self._draws[:, self._step, None])
        self._step += 1
        return torch.where(self._temperature[:, 0] > 0, sampled, likeliest)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone, given by their places in the batch as it is."""
        if not self._greedy:
            self._draws, self._temperature, self._top_p = self._draws[rows], self._temperature[rows], self._top_p[rows]

    def _sample(self, logits: Tensor, draws: Tensor) -> Tensor:
        """Invert the distribution function of the fewest likely tokens that together reach `top_p`."""
        relative = logits - logits.amax(-1, keepdim=True)
        warm = torch.where(self._temperature > 0, self._temperature, 1.0)
        ordered, order = torch.sort(torch.softmax(relative / warm, -1), dim=-1, descending=True, stable=True)
        inside = ordered.cumsum(-1) - ordered < self._top_p
        inside[:, 0] = True
        reached = torch.where(inside, ordered, 0.0).cumsum(-1)
        place = torch.searchsorted(reached, draws * reached[:, -1:], right=True)
        place = place.minimum(inside.sum(-1, keepdim=True) - 1)
        return order.gather(-1, place)[:, 0]
