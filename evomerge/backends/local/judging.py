"""Likelihoods of given continuations: a batch is read in one forward pass, padded on the right; nothing is generated.

A causal model does not see what stands to the right, so padding needs no mask and changes no value. Log-probabilities
are natural, summed in float64. Batches whose logits would not fit in memory are read in parts, as their shapes decide.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch.nn import functional

from evomerge.backends.local.resident import Causal
from evomerge.backends.text import Split
from evomerge.errors import CandidateError
from evomerge.exchange import Likelihood

_LOGITS = 1 << 27
"""Logits of one forward pass at most: half a gigabyte of float32, unless a single row has more."""

_NOTHING = -100
"""The target of a position that is not judged (what cross_entropy ignores by default)."""


def judge(causal: Causal, splits: Sequence[Split], running: Callable[[], None]) -> list[Likelihood]:
    """Return the likelihood of each continuation given what stands before it. `running` is called before each pass.

    Every split with a continuation has a `start` of at least 1; an empty continuation has the log-probability 0.
    Raises CandidateError when a log-probability is not a finite number.
    """
    likelihoods = [Likelihood(0.0, 0)] * len(splits)
    places = [place for place, split in enumerate(splits) if split.start < len(split.ids)]
    if not places:
        return likelihoods
    kept = max(len(splits[place].ids) for place in places) - min(splits[place].start for place in places)
    size = max(1, _LOGITS // (kept * causal.vocabulary))
    for first in range(0, len(places), size):
        running()
        part = places[first : first + size]
        for place, likelihood in zip(part, _judged(causal, [splits[place] for place in part]), strict=True):
            likelihoods[place] = likelihood
    return likelihoods


def _judged(causal: Causal, splits: Sequence[Split]) -> list[Likelihood]:
    width = max(len(split.ids) for split in splits) - 1
    first = min(split.start for split in splits) - 1
    inputs = [list(split.ids[:-1]) + [0] * (width + 1 - len(split.ids)) for split in splits]
    targets = [
        [_NOTHING] * (split.start - 1) + list(split.ids[split.start :]) + [_NOTHING] * (width + 1 - len(split.ids))
        for split in splits
    ]
    read = torch.tensor(inputs, device=causal.device)
    logits = causal.logits({"input_ids": read, "use_cache": False, "logits_to_keep": width - first})[
        :, first - width :
    ].float()
    wanted = torch.tensor(targets, device=causal.device)[:, first:]
    losses = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted)
    sums = losses.double().sum(-1).neg()
    if not bool(torch.isfinite(sums).all()):
        raise CandidateError("the model's likelihoods are not finite numbers: the recipe's weights are too large")
    totals = cast("list[float]", sums.tolist())
    return [Likelihood(total, len(split.ids) - split.start) for total, split in zip(totals, splits, strict=True)]
