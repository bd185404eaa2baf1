"""Sums and sign votes over task vectors whose entries are dropped at random: DARE, and what DELLA shares with it.

The random numbers are those of `strategies.merge.masks`, two of which come from one word.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.backends.weights.kernels.jit import compiled, inlined, inlined_in_any_order
from evomerge.backends.weights.kernels.numbers import delta, load, load_pair, max_size, size_of, store, store_pair
from evomerge.backends.weights.kernels.tuples import each, each_with, item, minus, times
from evomerge.backends.weights.kernels.votes import Combine, agreeing_max, agreeing_mean, agreeing_sum, summed
from evomerge.backends.weights.kernels.work import UNIT, Work, floats
from evomerge.strategies.merge.averages import shares
from evomerge.strategies.merge.masks import expert_key, highest_kept
from evomerge.strategies.merge.ties import ballot

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evomerge.backends.weights.kernels.numbers import Elements

Drop = Callable[[np.float32, np.int32, Any, Any], np.float32]
"""Returns what becomes of an entry, given its random number, its rank, and what is told of its model."""

Keeps = Callable[[np.int32, Any, Any], bool]
"""Returns whether an entry is kept, given its random number, its rank, and what is told of its model."""

Pass = Callable[..., int]
"""`drop_pass` compiled for what it combines and drops: code in which functions are arguments could not be kept."""

Ranks = Callable[[int, int, int], "NDArray[Any]"]
"""Returns the ranks of an input's entries, given its index and between which flat indices they stand."""

Masses = Callable[..., tuple[np.float64, np.float64]]
"""`drop_masses` compiled for what it keeps."""

_ZERO = np.float32(0)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def dare_linear(work: Work) -> int:
    """DARE: the weighted sum."""
    return _dare(work, _sum, shares(work.params))


def dare_ties(work: Work) -> int:
    """DARE with the vote of TIES."""
    return _dare(work, _VOTES[work.params.choice("merge_func")], work.params.numbers("weight"))


def _dare(work: Work, kernel: Pass, weights: Sequence[float]) -> int:
    l1 = work.params.choice("rescale") == "l1"

    def none(index: int, begin: int, end: int) -> "NDArray[Any]":
        return work.inputs[index][begin:end]  # not looked at

    told: list[tuple[np.int32, np.float32]] = []
    for index, density in enumerate(work.params.numbers("density")):
        highest = np.int32(highest_kept(density))
        factor = l1_factor(work, _masses, index, none, UNIT, (highest,)) if l1 else 1 / density
        told.append((highest, np.float32(factor)))
    return combined(work, kernel, weights, none, UNIT, told)


def combined(work: Work, kernel: Pass, weights: Sequence[float], ranks: Ranks, step: int, told: Any) -> int:
    """Write the base plus what `kernel` makes of the inputs' entries, in the order of a ballot.

    `told` has what the kernel is told of each input. Ranks are asked for in pieces of at most `step` entries, an even
    number, each of which begins at a multiple of it.
    """
    order = ballot(work.ctx, weights)
    keys = tuple(_key(work, index) for index in order)
    told = tuple(told[index] for index in order)
    own, scale = floats([weights[index] for index in order]), np.float32(work.params.number("scale"))

    def part(begin: int, end: int) -> int:
        return kernel(
            work.origin[begin:end],
            tuple(work.inputs[index][begin:end] for index in order),
            tuple(ranks(index, begin, end) for index in order),
            keys,
            begin,
            told,
            own,
            scale,
            work.out[begin:end],
            work.largest,
        )

    return work.over(part, step=step)


def l1_factor(work: Work, masses: Masses, index: int, ranks: Ranks, step: int, told: Any) -> float:
    """Return what brings the kept magnitudes back to the sum of all; 1 where nothing but zeros was kept."""
    base, model, key = work.origin, work.inputs[index], _key(work, index)
    pieces = work.gather(lambda b, e: masses(base[b:e], model[b:e], ranks(index, b, e), key, b, told), step=step)
    whole, kept = (sum(mass) for mass in zip(*pieces, strict=True))
    return whole / kept if kept > 0 else 1.0


def _key(work: Work, index: int) -> np.uint64:
    return np.uint64(expert_key(work.ctx.seed, work.ctx.name, work.ctx.fingerprints[index]))


@inlined
def drop_pass(
    combine: Combine,
    drop: Drop,
    base: "Elements",
    models: "tuple[Elements, ...]",
    ranks: "tuple[NDArray[Any], ...]",
    keys: tuple[np.uint64, ...],
    first: int,
    told: Any,
    weights: tuple[np.float32, ...],
    scale: np.float32,
    out: "Elements",
    largest: np.float32,
) -> int:
    """Combine what becomes of the entries; `first` is the flat index of the first in its tensor, an even number.

    Returns 1 where a result is larger than `largest` or no number, else 0.
    """
    most = np.uint32(0)
    for pair in range(out.size // 2):
        words = each_with(_word, keys, first // 2 + pair)  # each serves two elements
        origins, pairs = load_pair(base, pair), each_with(load_pair, models, pair)
        own = each_with(_at, ranks, 2 * pair)
        kept = each(drop, each_with(minus, each_with(item, pairs, 0), origins[0]), each(_lower, words), own, told)
        one = _combined(combine, origins[0], kept, weights, scale)
        own = each_with(_at, ranks, 2 * pair + 1)
        kept = each(drop, each_with(minus, each_with(item, pairs, 1), origins[1]), each(_upper, words), own, told)
        other = _combined(combine, origins[1], kept, weights, scale)
        most = max_size(max_size(most, one), other)
        store_pair(out, pair, one, other)
    if out.size % 2:
        last = out.size - 1
        words = each_with(_word, keys, (first + last) // 2)
        origin = load(base, last)
        kept = each(
            drop, each_with(delta, models, last, origin), each(_lower, words), each_with(_at, ranks, last), told
        )
        value = _combined(combine, origin, kept, weights, scale)
        most = max_size(most, value)
        store(out, last, value)
    return 1 if most > size_of(largest) else 0


@inlined
def _combined(combine: Any, origin: Any, kept: Any, weights: Any, scale: Any) -> Any:
    return origin + scale * combine(each(times, kept, weights), weights)


@inlined_in_any_order
def drop_masses(
    keeps: Keeps, base: "Elements", model: "Elements", ranks: "NDArray[Any]", key: np.uint64, first: int, told: Any
) -> tuple[np.float64, np.float64]:
    """Return the sum of all magnitudes of a task vector, and that of those which are kept, in float64.

    `first` is what it is for `drop_pass`.
    """
    whole, kept = np.float64(0), np.float64(0)
    for pair in range(base.size // 2):
        word = _word(key, first // 2 + pair)
        k = 2 * pair
        lower, upper = abs(delta(model, k, load(base, k))), abs(delta(model, k + 1, load(base, k + 1)))
        whole += np.float64(lower) + np.float64(upper)
        lower = lower if keeps(_lower(word), ranks[k], told) else _ZERO
        upper = upper if keeps(_upper(word), ranks[k + 1], told) else _ZERO
        kept += np.float64(lower) + np.float64(upper)
    if base.size % 2:
        k = base.size - 1
        value = np.float64(abs(delta(model, k, load(base, k))))
        whole += value
        kept += value if keeps(_lower(_word(key, (first + k) // 2)), ranks[k], told) else np.float64(0)
    return whole, kept


@inlined
def _keeps(random: Any, _rank: Any, told: Any) -> Any:
    """Return whether a random number is at most told[0]."""
    return random <= told[0]


@inlined
def _drop(value: Any, random: Any, rank: Any, told: Any) -> Any:
    """Return a value times told[1] where it is kept."""
    return value * told[1] if _keeps(random, rank, told) else _ZERO


@inlined
def _at(ranks: Any, index: Any) -> Any:
    return ranks[index]


@inlined
def _word(key: Any, number: Any) -> Any:
    """Return the word that decides on elements 2 * number and 2 * number + 1; see `strategies.merge.masks`."""
    word = key + (np.uint64(number) + np.uint64(1)) * _GOLDEN
    word = (word ^ (word >> np.uint64(30))) * _FIRST
    word = (word ^ (word >> np.uint64(27))) * _SECOND
    return word ^ (word >> np.uint64(31))


@inlined
def _lower(word: Any) -> Any:
    return np.int32(word)


@inlined
def _upper(word: Any) -> Any:
    return np.int32(word >> np.uint64(32))


@compiled
def _sum(
    base: Any, models: Any, ranks: Any, keys: Any, first: Any, told: Any, weights: Any, scale: Any, out: Any, most: Any
) -> int:
    return drop_pass(summed, _drop, base, models, ranks, keys, first, told, weights, scale, out, most)


@compiled
def _agreeing_mean(
    base: Any, models: Any, ranks: Any, keys: Any, first: Any, told: Any, weights: Any, scale: Any, out: Any, most: Any
) -> int:
    return drop_pass(agreeing_mean, _drop, base, models, ranks, keys, first, told, weights, scale, out, most)


@compiled
def _agreeing_sum(
    base: Any, models: Any, ranks: Any, keys: Any, first: Any, told: Any, weights: Any, scale: Any, out: Any, most: Any
) -> int:
    return drop_pass(agreeing_sum, _drop, base, models, ranks, keys, first, told, weights, scale, out, most)


@compiled
def _agreeing_max(
    base: Any, models: Any, ranks: Any, keys: Any, first: Any, told: Any, weights: Any, scale: Any, out: Any, most: Any
) -> int:
    return drop_pass(agreeing_max, _drop, base, models, ranks, keys, first, told, weights, scale, out, most)


@compiled
def _masses(base: Any, model: Any, ranks: Any, key: Any, first: Any, told: Any) -> tuple[np.float64, np.float64]:
    return drop_masses(_keeps, base, model, ranks, key, first, told)


_VOTES: Mapping[str, Pass] = {"mean": _agreeing_mean, "sum": _agreeing_sum, "max": _agreeing_max}
