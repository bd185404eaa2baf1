"""DELLA: the ranks of entries within their rows, and chances that fall with them.

A rank takes 16 bits in rows of up to 65,536 entries and 32 in longer ones. A study keeps ranks, in a file that is
mapped where they are many: about as much as the experts take. A single merge finds those of a few rows at a time.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.backends.weights.kernels.dropped import Pass, Ranks, combined, drop_masses, drop_pass, l1_factor
from evomerge.backends.weights.kernels.jit import compiled, inlined
from evomerge.backends.weights.kernels.numbers import bin_of, load
from evomerge.backends.weights.kernels.scratch import cost_of, passing_room
from evomerge.backends.weights.kernels.threads import spans
from evomerge.backends.weights.kernels.votes import agreeing_max, agreeing_mean, agreeing_sum, summed
from evomerge.backends.weights.kernels.work import UNIT, Work
from evomerge.strategies.merge.averages import shares
from evomerge.strategies.merge.della import span_of_chances
from evomerge.strategies.merge.magnitudes import BINS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evomerge.backends.weights.kernels.numbers import Elements

_SHORT = 1 << 16
_FEW = 1 << 25
"""Ranks of a tensor that memory may hold till it is merged, instead of finding them twice."""
_NUMBERS = float(1 << 32)
_SIGN = np.uint32(1 << 31)
_MOST = np.float32(_NUMBERS)
_ZERO = np.float32(0)


def della(work: Work) -> int:
    """DELLA with the vote of TIES."""
    return _della(work, _VOTES[work.params.choice("merge_func")], work.params.numbers("weight"))


def della_linear(work: Work) -> int:
    """DELLA: the weighted sum."""
    return _della(work, _sum, shares(work.params))


def _della(work: Work, kernel: Pass, weights: Sequence[float]) -> int:
    l1 = work.params.choice("rescale") == "l1"
    ranks, rows = _ranks(work, twice=l1)
    told: list[tuple[np.float32, np.float32, np.float32, np.float32]] = []
    for index, own in enumerate(work.params.inputs):
        lowest, step = span_of_chances(work.columns, float(own["density"]), float(own["epsilon"]))
        numbers = np.float32(step * _NUMBERS), np.float32(lowest * _NUMBERS)
        divisor = 1 / l1_factor(work, _masses, index, ranks, rows, numbers) if l1 else 0.0
        told.append((*numbers, np.float32(0 if l1 else 1 / _NUMBERS), np.float32(divisor)))
    return combined(work, kernel, weights, ranks, rows, told)


def _ranks(work: Work, *, twice: bool) -> tuple[Ranks, int]:
    """Return what has the ranks of some rows or finds them, and the number of entries of those rows, an even one.

    `twice` tells that ranks are asked for two times.
    """

    def found(index: int, begin: int, end: int) -> "NDArray[Any]":
        ranks = passing_room(index, end - begin, _kind(work))
        base, model = work.sources.pair(index)
        _rank(base[begin:end], model[begin:end], work.columns, ranks)
        return ranks

    rows = max(UNIT // (2 * work.columns), 1) * 2 * work.columns
    if work.sources.lasting or (twice and work.out.size * len(work.inputs) <= _FEW):
        there = [_of_tensor(work, index) for index in range(len(work.inputs))]
        return lambda index, begin, end: there[index][begin:end], rows
    return found, rows


def _of_tensor(work: Work, index: int) -> "NDArray[Any]":
    """Return the place of every entry of an input's task vector in its row, in the order of rising magnitude."""
    columns, (base, model) = work.columns, work.sources.pair(index)
    step = max(UNIT // columns, 1) * columns

    def written(ranks: "NDArray[Any]") -> "NDArray[Any]":
        work.sources.threads.map(
            lambda begin, end: _rank(base[begin:end], model[begin:end], columns, ranks[begin:end]),
            spans(base.size, step),
        )
        return ranks

    if not work.sources.lasting:
        return written(passing_room(index, base.size, _kind(work)))
    return work.sources.keep("ranks", (index,), lambda: written(work.sources.room(base.size, _kind(work))), cost_of)


def _kind(work: Work) -> str:
    return "uint16" if work.columns <= _SHORT else "uint32"


@compiled
def _rank(base: "Elements", model: "Elements", columns: int, ranks: "NDArray[Any]") -> None:
    """Write the ranks of some rows; of equal magnitudes that of lowest index counts as the largest."""
    found = np.empty(columns, np.uint16)
    places = np.zeros(BINS + 2, np.uint32)  # how many entries of a row are smaller, by bin; zeros before the lowest
    for row in range(base.size // columns):
        start = row * columns
        low, high = np.uint32(BINS), np.uint32(0)
        for column in range(columns):
            own = bin_of(load(model, start + column) - load(base, start + column))
            found[column] = own
            low, high = min(low, own if own > np.uint32(0) else np.uint32(BINS)), max(high, own)
        before = np.uint16(low - np.uint32(1))
        for column in range(columns):
            found[column] = found[column] - before if found[column] > np.uint16(0) else np.uint16(0)
        width = high - low + np.uint32(2) if high > np.uint32(0) else np.uint32(1)
        places[: width + 1] = 0
        for column in range(columns):
            places[found[column] + 1] += np.uint32(1)
        for bin_ in range(1, width):
            places[bin_ + 1] += places[bin_]
        for column in range(columns - 1, -1, -1):
            ranks[start + column] = places[found[column]]
            places[found[column]] += np.uint32(1)


@inlined
def _chance(rank: Any, told: Any) -> Any:
    """Return an entry's chance to be kept in units of 2^-32: told[1] plus its rank times told[0]."""
    return np.float32(rank) * told[0] + told[1]


@inlined
def _keeps(random: Any, rank: Any, told: Any) -> Any:
    """Return whether an entry's random number is below its chance, as `strategies.merge.masks` compares them."""
    return _number(random) <= _chance(rank, told)


@inlined
def _number(random: Any) -> Any:
    return np.float32(np.uint32(random) ^ _SIGN)


@inlined
def _drop(value: Any, random: Any, rank: Any, told: Any) -> Any:
    """Return a value over its chance (at most 1) times told[2] plus told[3] where it is kept."""
    chance = _chance(rank, told)
    chance = chance if chance < _MOST else _MOST
    divisor = chance * told[2] + told[3]
    return value / divisor if _number(random) <= chance else _ZERO


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
