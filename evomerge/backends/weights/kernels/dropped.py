"""Sums and sign votes over task vectors whose entries are dropped at random: DARE.

The random numbers are those of `strategies.merge.masks`, two of which come from one word.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.backends.weights.kernels.jit import compiled, inlined
from evomerge.backends.weights.kernels.numbers import delta, load, store
from evomerge.backends.weights.kernels.tuples import each, each_with, times
from evomerge.backends.weights.kernels.votes import Combine, merge_func, summed
from evomerge.backends.weights.kernels.work import Work, floats
from evomerge.strategies.merge.averages import shares
from evomerge.strategies.merge.masks import expert_key, highest_kept
from evomerge.strategies.merge.ties import ballot

if TYPE_CHECKING:
    from evomerge.backends.weights.kernels.numbers import Elements

_ZERO = np.float32(0)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def dare_linear(work: Work) -> int:
    """DARE: the weighted sum."""
    return _dropped(work, summed, shares(work.params))


def dare_ties(work: Work) -> int:
    """DARE with the vote of TIES."""
    return _dropped(work, merge_func(work.params), work.params.numbers("weight"))


def key(work: Work, index: int) -> np.uint64:
    """Return the key of an input's random numbers."""
    return np.uint64(expert_key(work.ctx.seed, work.ctx.name, work.ctx.fingerprints[index]))


def _dropped(work: Work, combine: Combine, weights: Sequence[float]) -> int:
    order = ballot(work.ctx, weights)
    densities = work.params.numbers("density")
    masks = tuple((key(work, i), np.int32(highest_kept(densities[i]))) for i in order)
    l1 = work.params.choice("rescale") == "l1"
    factors = floats(
        [_l1_factor(work, i, mask) if l1 else 1 / densities[i] for i, mask in zip(order, masks, strict=True)]
    )
    own, scale = floats([weights[i] for i in order]), np.float32(work.params.number("scale"))

    def part(begin: int, end: int) -> int:
        return _pass(
            combine,
            work.origin[begin:end],
            tuple(work.inputs[i][begin:end] for i in order),
            masks,
            begin,
            factors,
            own,
            scale,
            work.out[begin:end],
            work.largest,
        )

    return work.over(part)


def _l1_factor(work: Work, index: int, mask: tuple[np.uint64, np.int32]) -> float:
    """Return what brings the kept magnitudes back to the sum of all; 1 where nothing but zeros was kept."""
    model = work.inputs[index]
    pieces = work.gather(lambda b, e: _masses(work.origin[b:e], model[b:e], mask, b))
    whole, kept = (sum(mass) for mass in zip(*pieces, strict=True))
    return whole / kept if kept > 0 else 1.0


@compiled
def _pass(
    combine: Combine,
    base: "Elements",
    models: "tuple[Elements, ...]",
    masks: tuple[tuple[np.uint64, np.int32], ...],
    first: int,
    factors: tuple[np.float32, ...],
    weights: tuple[np.float32, ...],
    scale: np.float32,
    out: "Elements",
    largest: np.float32,
) -> int:
    """Combine the entries whose random numbers are at most masks[i][1], times `factors`; masks[i][0] is the key.

    `first` is the flat index of the first element in its tensor, an even number. Returns what `banded` returns.
    """
    bad = 0
    for pair in range(out.size // 2):
        words = each_with(word_of, masks, first // 2 + pair)  # each serves two elements
        k = 2 * pair
        value = _element(combine, base, models, k, each(lower, words), masks, factors, weights, scale)
        bad += 0 if abs(value) <= largest else 1
        store(out, k, value)
        value = _element(combine, base, models, k + 1, each(upper, words), masks, factors, weights, scale)
        bad += 0 if abs(value) <= largest else 1
        store(out, k + 1, value)
    if out.size % 2:
        k = out.size - 1
        words = each_with(word_of, masks, (first + k) // 2)
        value = _element(combine, base, models, k, each(lower, words), masks, factors, weights, scale)
        bad += 0 if abs(value) <= largest else 1
        store(out, k, value)
    return bad


@inlined
def _element(
    combine: Any,
    base: Any,
    models: Any,
    k: Any,
    drawn: Any,
    masks: Any,
    factors: Any,
    weights: Any,
    scale: Any,
) -> Any:
    origin = load(base, k)
    kept = each(_drawn, each_with(delta, models, k, origin), drawn, masks)
    return origin + scale * combine(each(times, each(times, kept, factors), weights), weights)


@compiled
def _masses(
    base: "Elements", model: "Elements", mask: tuple[np.uint64, np.int32], first: int
) -> tuple[np.float64, np.float64]:
    """Return the sum of all magnitudes of a task vector, and that of those which the mask keeps, in float64."""
    whole, kept = np.float64(0), np.float64(0)
    for k in range(base.size):
        size = abs(load(model, k) - load(base, k))
        word = word_of(mask, (first + k) // 2)
        whole += size
        kept += size if (upper(word) if (first + k) % 2 else lower(word)) <= mask[1] else _ZERO
    return whole, kept


@inlined
def _drawn(value: Any, random: Any, mask: Any) -> Any:
    return value if random <= mask[1] else _ZERO


@inlined
def word_of(mask: Any, number: Any) -> Any:
    """Return the word that decides on elements 2 * number and 2 * number + 1; see `strategies.merge.masks`."""
    word = mask[0] + (np.uint64(number) + np.uint64(1)) * _GOLDEN
    word = (word ^ (word >> np.uint64(30))) * _FIRST
    word = (word ^ (word >> np.uint64(27))) * _SECOND
    return word ^ (word >> np.uint64(31))


@inlined
def lower(word: Any) -> Any:
    """Return the random number of a word's first element."""
    return np.int32(word)


@inlined
def upper(word: Any) -> Any:
    """Return the random number of a word's second element."""
    return np.int32(word >> np.uint64(32))
