"""DELLA: the ranks of entries within their rows, kept once a study, and chances that fall with them.

A rank takes 16 bits in rows of up to 65,536 entries and 32 in longer ones, in a file that is mapped where they are
many: about as much as the experts take.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.backends.weights.kernels.dropped import Pass, combined, drop_masses, drop_pass, l1_factor
from evomerge.backends.weights.kernels.jit import compiled, inlined
from evomerge.backends.weights.kernels.numbers import bin_of, load
from evomerge.backends.weights.kernels.scratch import cost_of
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
_NUMBERS = float(1 << 32)
_HALF = np.float64(1 << 31)
_MOST = np.float64(_NUMBERS)
_ZERO = np.float32(0)


def della(work: Work) -> int:
    """DELLA with the vote of TIES."""
    return _della(work, _VOTES[work.params.choice("merge_func")], work.params.numbers("weight"))


def della_linear(work: Work) -> int:
    """DELLA: the weighted sum."""
    return _della(work, _sum, shares(work.params))


def _della(work: Work, kernel: Pass, weights: Sequence[float]) -> int:
    l1 = work.params.choice("rescale") == "l1"
    ranks = [_ranks(work, index) for index in range(len(work.inputs))]
    told: list[tuple[np.float64, np.float64, np.float32, np.float32]] = []
    for index, own in enumerate(work.params.inputs):
        lowest, step = span_of_chances(work.columns, float(own["density"]), float(own["epsilon"]))
        numbers = np.float64(step * _NUMBERS), np.float64(lowest * _NUMBERS)
        unchanged = *numbers, np.float32(0), np.float32(1)
        divisor = 1 / l1_factor(work, _masses, index, ranks[index], unchanged) if l1 else 0.0
        told.append((*numbers, np.float32(0 if l1 else 1 / _NUMBERS), np.float32(divisor)))
    return combined(work, kernel, weights, ranks, told)


def _ranks(work: Work, index: int) -> "NDArray[Any]":
    """Return the place of every entry of an input's task vector in its row, in the order of rising magnitude."""

    def make() -> "NDArray[Any]":
        columns, (base, model) = work.columns, work.sources.pair(index)
        ranks = work.sources.room(base.size, "uint16" if columns <= _SHORT else "uint32")
        step = max(UNIT // columns, 1) * columns
        work.sources.threads.map(
            lambda begin, end: _rank(base[begin:end], model[begin:end], columns, ranks[begin:end]),
            spans(base.size, step),
        )
        return ranks

    return work.sources.keep("ranks", (index,), make, cost_of)


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
def _drop(value: Any, random: Any, rank: Any, told: Any) -> Any:
    """Return a value over its chance times told[2] plus told[3], where its random number is below the chance.

    The chance, in units of 2^-32 and at most 1, is told[1] plus `rank` times told[0].
    """
    chance = np.float64(rank) * told[0] + told[1]
    chance = chance if chance < _MOST else _MOST
    divisor = np.float32(chance) * told[2] + told[3]
    return value / divisor if np.float64(random) + _HALF < chance else _ZERO


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
    return drop_masses(_drop, base, model, ranks, key, first, told)


_VOTES: Mapping[str, Pass] = {"mean": _agreeing_mean, "sum": _agreeing_sum, "max": _agreeing_max}
