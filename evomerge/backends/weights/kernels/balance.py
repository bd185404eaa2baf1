"""PCB-Merging: lengths and balances of a model's entries, counted once a study, and the loop that lets them compete.

Both are counted as `strategies.merge.values` does: told apart by 12 significant bits.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from evomerge.backends.weights.kernels.functions import exp, tanh
from evomerge.backends.weights.kernels.histograms import Arrays, parts
from evomerge.backends.weights.kernels.jit import compiled, inlined
from evomerge.backends.weights.kernels.numbers import bits_of, delta, load, store
from evomerge.backends.weights.kernels.threads import spans
from evomerge.backends.weights.kernels.tuples import each, each_with, times, total
from evomerge.backends.weights.kernels.work import Sources, Work, floats
from evomerge.strategies.merge.pcb import LEAST_SCORE, least_balance, limits
from evomerge.strategies.merge.ties import ballot
from evomerge.strategies.merge.values import KEYS, ROUNDED, Values, number_above
from evomerge.strategies.merge.whole import OfInputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evomerge.backends.weights.kernels.numbers import Elements

Limits = tuple[np.float32, np.float32, np.float32, np.float32]
"""Between what magnitudes a model's are cut, the difference of both (1 where there is none), the number of models."""

Count = Callable[[Arrays, Any, "NDArray[np.uint32]"], tuple[np.float32, np.float32]]
"""`_count` compiled for what it counts: code in which functions are arguments could not be kept."""

_UNIT = 1 << 22
_BLOCK = 1 << 12
_ZERO = np.float32(0)
_ONE = np.float32(1)
_INFINITE = np.float32(np.inf)
_LARGEST = np.float32(np.finfo(np.float32).max)
_LEAST_SCORE = np.float32(LEAST_SCORE)
_HALF = np.uint32(1 << (ROUNDED - 1))
_BITS = np.uint32(ROUNDED)


def pcb(work: Work) -> int:
    """PCB-Merging."""
    if work.params.choice("scope") == "model":
        lengths, balances = (cast("OfInputs[Values]", whole.total).each for whole in work.ctx.whole)
    else:
        lengths = tuple(_kept_lengths(work.sources, index) for index in range(len(work.inputs)))
        balances = tuple(_kept_balances(work.sources, index, lengths) for index in range(len(work.inputs)))
    weights, densities = work.params.numbers("weight"), work.params.numbers("density")
    order = ballot(work.ctx, weights)
    cuts = tuple(_limits(lengths[index], len(order)) for index in order)
    least = tuple(_least(balances[index], densities[index]) for index in order)
    own, scale = floats([weights[index] for index in order]), np.float32(work.params.number("scale"))

    def part(begin: int, end: int) -> int:
        models = tuple(work.inputs[index][begin:end] for index in order)
        return _pass(work.origin[begin:end], models, cuts, least, own, scale, work.out[begin:end], work.largest)

    return work.over(part)


def all_lengths(sources: Sources) -> OfInputs[Values]:
    """Return what the method's stage of this name finds."""
    return OfInputs(tuple(_lengths(sources, index) for index in range(len(sources.inputs))))


def all_balances(sources: Sources) -> OfInputs[Values]:
    """Return what the method's stage of this name finds, with the lengths as the stage before."""
    lengths = cast("OfInputs[Values]", sources.ctx.whole[0].total).each
    return OfInputs(tuple(_balances(sources, index, lengths[index]) for index in range(len(sources.inputs))))


def _kept_lengths(sources: Sources, index: int) -> Values:
    return sources.keep("lengths", (index,), lambda: _lengths(sources, index), lambda found: found.nbytes)


def _kept_balances(sources: Sources, index: int, lengths: Sequence[Values]) -> Values:
    of = index, *_order(sources)
    return sources.keep("balances", of, lambda: _balances(sources, index, lengths[index]), lambda found: found.nbytes)


def _lengths(sources: Sources, index: int) -> Values:
    """Return the magnitudes of an input's task vector."""
    return _counted(_count_lengths, sources.pair(index), _ZERO, sources)


def _balances(sources: Sources, index: int, lengths: Values) -> Values:
    """Return the balances of an input's entries."""
    order = _order(sources)
    arrays = (sources.origin, *(sources.inputs[other] for other in order))
    return _counted(_count_balances, arrays, (np.int64(order.index(index)), _limits(lengths, len(order))), sources)


def _order(sources: Sources) -> list[int]:
    return ballot(sources.ctx, (1.0,) * len(sources.inputs))


def _limits(lengths: Values, models: int) -> Limits:
    low, high = limits(lengths)
    return np.float32(low), np.float32(high), np.float32(high - low if high > low else 1), np.float32(models)


def _least(balances: Values, density: float) -> tuple[np.float32, np.float32, np.float32]:
    """Return the smallest balance that wins something, the limit below it, and the limit's distance to the largest."""
    key, limit = least_balance(balances, density)
    span = balances.highest - limit
    return (number_above(key), np.float32(limit), np.float32(span)) if span > 0 else (_INFINITE, _ZERO, _ONE)


def _counted(loop: Count, arrays: Arrays, told: Any, sources: Sources) -> Values:
    """Return the values of some tensors' entries, counted."""

    def count(begin: int, end: int) -> Values:
        counts = np.zeros(2 * KEYS, np.uint32)
        lowest, highest = loop(parts(arrays, begin, end), told, counts)
        there = counts.nonzero()[0]
        return Values(there - KEYS, counts[there].astype(np.int64), float(lowest), float(highest))

    first, *others = sources.threads.map(count, spans(arrays[0].size, _UNIT))
    for other in others:
        first = first + other
    return first


@inlined
def _count(
    value: Callable[[Any, int, Any], np.float32], arrays: Arrays, told: Any, counts: "NDArray[np.uint32]"
) -> tuple[np.float32, np.float32]:
    """Count values by their keys, and return the smallest and the largest."""
    lowest, highest = _INFINITE, -_INFINITE
    found = np.empty(_BLOCK, np.float32)  # what is computed apart from counting is computed many at a time
    for begin in range(0, arrays[0].size, _BLOCK):
        size = min(_BLOCK, arrays[0].size - begin)
        for k in range(size):
            found[k] = value(arrays, begin + k, told)
        for k in range(size):
            lowest, highest = min(lowest, found[k]), max(highest, found[k])
            bits = bits_of(found[k])
            key = np.int64(((bits & np.uint32(0x7FFFFFFF)) + _HALF) >> _BITS)
            counts[KEYS + (-key if bits >> np.uint32(31) else key)] += np.uint32(1)
    return lowest, highest


@compiled
def _pass(
    base: "Elements",
    models: "tuple[Elements, ...]",
    cuts: tuple[Limits, ...],
    least: tuple[tuple[np.float32, np.float32, np.float32], ...],
    weights: tuple[np.float32, ...],
    scale: np.float32,
    out: "Elements",
    largest: np.float32,
) -> int:
    """Write the mean of the entries by their scores; return how many are larger than `largest` or no number."""
    bad = 0
    for k in range(out.size):
        origin = load(base, k)
        deltas = each_with(delta, models, k, origin)
        products = each_with(times, deltas, _together(deltas))
        scores = each(_score, each(_balance, deltas, products, cuts), least)
        values = each(times, each(times, each(_cut, deltas, cuts), scores), weights)
        mass = total(scores)
        value = origin + scale * (total(values) / (mass if mass > _LEAST_SCORE else _LEAST_SCORE))
        bad += 0 if abs(value) <= largest else 1
        store(out, k, value)
    return bad


@inlined
def _length(arrays: Any, k: Any, _told: Any) -> Any:
    return abs(delta(arrays[1], k, load(arrays[0], k)))


@inlined
def _one_balance(arrays: Any, k: Any, told: Any) -> Any:
    """Return the balance of the entry of model told[0]; told[1] has its limits."""
    deltas = each_with(delta, arrays[1:], k, load(arrays[0], k))
    own = deltas[told[0]]
    return _balance(own, own * _together(deltas), told[1])


@inlined
def _together(deltas: Any) -> Any:
    found = total(deltas)
    found = found if found < _LARGEST else _LARGEST
    return found if found > -_LARGEST else -_LARGEST


@inlined
def _within(value: Any, cut: Any) -> Any:
    size = abs(value)
    size = size if size > cut[0] else cut[0]
    return size if size < cut[1] else cut[1]


@inlined
def _balance(value: Any, product: Any, cut: Any) -> Any:
    """Return what decides between the entries of a model, times exp(-models)."""
    standing = (_within(value, cut) - cut[0]) / cut[2]
    return exp((standing * standing - _ONE) * cut[3]) * tanh(product)


@inlined
def _cut(value: Any, cut: Any) -> Any:
    """Return a value with its magnitude cut; zero stays zero."""
    size = _within(value, cut)
    size = size if value > _ZERO else -size
    return value if value == _ZERO else size


@inlined
def _score(balance: Any, least: Any) -> Any:
    return _ZERO if balance < least[0] else (balance - least[1]) / least[2]


@compiled
def _count_lengths(arrays: Any, told: Any, counts: Any) -> tuple[np.float32, np.float32]:
    return _count(_length, arrays, told, counts)


@compiled
def _count_balances(arrays: Any, told: Any, counts: Any) -> tuple[np.float32, np.float32]:
    return _count(_one_balance, arrays, told, counts)
