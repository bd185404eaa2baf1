"""SCE: what the variance over models says of each entry, kept once a study, and the loop that selects and fuses by it.

Weights follow from the energies of the entries that are selected. Energies are kept by variance and by segment of the
tensor, so a new share of entries is a lookup, and a look through one segment for where entries are equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.backends.weights.kernels.histograms import Arrays, Histogram, Loops, count, extremes, parts, place
from evomerge.backends.weights.kernels.jit import compiled, inlined
from evomerge.backends.weights.kernels.numbers import (
    bin_of,
    delta,
    load,
    load_pair,
    max_size,
    size_of,
    store,
    store_pair,
)
from evomerge.backends.weights.kernels.threads import spans
from evomerge.backends.weights.kernels.trims import Bounds
from evomerge.backends.weights.kernels.tuples import each, each_with, item, minus, times, total
from evomerge.backends.weights.kernels.votes import agrees, flip_of, where
from evomerge.backends.weights.kernels.work import Sources, Work, floats
from evomerge.strategies.merge.magnitudes import BINS
from evomerge.strategies.merge.sce import LEAST_MASS
from evomerge.strategies.merge.sparsify import kept_count
from evomerge.strategies.merge.ties import ballot

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evomerge.backends.weights.kernels.numbers import Elements

_SEGMENT = 1 << 17
_ZERO = np.float32(0)
_LEAST_MASS = np.float32(LEAST_MASS)


@dataclass(frozen=True)
class Variances:
    """The variances over models of a tensor's entries, and what lies where they have which value.

    `energies` has shape (segments, 1 + width, models), float64: the sums of the task vectors' squares over the entries
    of a segment without variance, and then of each bin of the histogram. `differ` tells whether any entries differ.
    """

    histogram: Histogram
    energies: "NDArray[np.float64]"
    differ: bool

    @classmethod
    def of(cls, arrays: Arrays, sources: Sources) -> "Variances":
        """Count the entries of a base and models."""
        found = Histogram.of(_VARIANCE, arrays, sources.threads)
        pieces = list(spans(found.size, _SEGMENT))
        energies = np.zeros((len(pieces), 1 + found.counts.shape[1], len(arrays) - 1))

        def add(begin: int, end: int) -> bool:
            return _add_energies(parts(arrays, begin, end), found.lowest, energies[begin // _SEGMENT])

        return cls(found, energies, any(sources.threads.map(add, pieces)))

    @property
    def bytes(self) -> int:
        """The memory it takes."""
        return self.histogram.bytes + self.energies.nbytes

    @property
    def differing(self) -> int:
        """How many entries have a variance above zero."""
        return self.histogram.size - int(self.histogram.zeros.sum())

    def selected(self, share: float, arrays: Arrays) -> "tuple[Bounds, NDArray[np.float64]]":
        """Return which variances a share of the differing entries has, and these entries' energies by model."""
        if share == 1 or not self.differing:  # differences so small that their squares are zero count as well
            return Bounds(None, self._no_cut), _summed(self._by_bin)
        band = self.histogram.band(0, kept_count(self.differing, share))
        bounds = Bounds(band, lambda bin_, places: self.histogram.cut(_VARIANCE, arrays, bin_, places))
        if band.low >= BINS:
            return bounds, np.zeros(len(arrays) - 1)
        column, cut = 1 + band.low - self.histogram.lowest, bounds.cuts[0]
        segment = cut // _SEGMENT
        begin = segment * _SEGMENT
        inside = np.asarray(_energies_of(parts(arrays, begin, cut), band.low), np.float64)
        energies = np.stack([_summed(self._by_bin[column + 1 :]), _summed(self.energies[:segment, column]), inside])
        return bounds, _summed(energies)

    @cached_property
    def _by_bin(self) -> "NDArray[np.float64]":
        return _summed(self.energies)

    @staticmethod
    def _no_cut(_bin: int, _places: int) -> int:
        return 0


def _summed(energies: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return the sum over the first index."""
    return np.asarray(np.sum(energies, axis=0), np.float64)


def sce(work: Work) -> int:
    """SCE."""
    order = ballot(work.ctx, (1.0,) * len(work.inputs))
    arrays = (work.origin, *(work.inputs[index] for index in order))
    found = work.sources.keep(
        "variance", order, lambda: Variances.of(arrays, work.sources), lambda variances: variances.bytes
    )
    scale = np.float32(work.params.number("scale"))
    if not found.differ:
        return _fused(work, arrays[:2], Bounds(None, lambda _bin, _places: 0), (1.0,), scale)
    bounds, energies = found.selected(work.params.number("select_topk"), arrays)
    whole = energies.sum()
    weights = energies / whole if whole > 0 else np.zeros(len(order))
    return _fused(work, arrays, bounds, weights.tolist(), scale)


def _fused(work: Work, arrays: Arrays, bounds: Bounds, weights: Sequence[float], scale: np.float32) -> int:
    own = floats(weights)

    def part(begin: int, end: int) -> int:
        base, *models = parts(arrays, begin, end)
        least = bounds.at(begin)[0]
        return _pass(base, tuple(models), least, own, scale, work.out[begin:end], work.largest)

    return work.over(part, cuts=bounds.cuts)


@compiled
def _pass(
    base: "Elements",
    models: Arrays,
    least: np.uint32,
    weights: tuple[np.float32, ...],
    scale: np.float32,
    out: "Elements",
    largest: np.float32,
) -> int:
    """Fuse the entries whose variance has bits of at least `least`.

    Returns 1 where a result is larger than `largest` or no number, else 0.
    """
    most = np.uint32(0)
    for pair in range(out.size // 2):
        origins, pairs = load_pair(base, pair), each_with(load_pair, models, pair)
        first = _element(origins[0], each_with(item, pairs, 0), least, weights, scale)
        second = _element(origins[1], each_with(item, pairs, 1), least, weights, scale)
        most = max_size(max_size(most, first), second)
        store_pair(out, pair, first, second)
    if out.size % 2:
        last = out.size - 1
        value = _element(load(base, last), each_with(load, models, last), least, weights, scale)
        most = max_size(most, value)
        store(out, last, value)
    return 1 if most > size_of(largest) else 0


@inlined
def _element(origin: Any, values: Any, least: Any, weights: Any, scale: Any) -> Any:
    deltas = each_with(minus, values, origin)
    kept = each_with(_unless, deltas, size_of(_variance(deltas)) < least)
    agree = each_with(agrees, kept, flip_of(kept))
    mass = total(each(where, agree, weights))
    mean = total(each(where, agree, each(times, kept, weights))) / (mass if mass > _LEAST_MASS else _LEAST_MASS)
    return origin + scale * mean


@inlined
def _variance_of(arrays: Any, k: Any) -> Any:
    """Return the variance of the models' entries, the first tensor being the base."""
    return _variance(each_with(delta, arrays[1:], k, load(arrays[0], k)))


@inlined
def _variance(deltas: Any) -> Any:
    """Return the variance, from differences to the first delta, so that it is exactly zero where all are equal."""
    count = np.float32(len(deltas))
    shifted = each_with(minus, deltas, deltas[0])
    apart = each_with(minus, shifted, total(shifted) / count)
    return total(each(times, apart, apart)) / count


@compiled
def _add_energies(arrays: Arrays, lowest: int, energies: "NDArray[np.float64]") -> bool:
    """Add the squares of a segment's task vectors to those of their variance's bin; return whether any differ."""
    differ = False
    for k in range(arrays[0].size):
        deltas = each_with(delta, arrays[1:], k, load(arrays[0], k))
        differ |= total(each_with(_differs, deltas, deltas[0])) > _ZERO
        found = int(bin_of(_variance(deltas)))
        place = 1 + found - lowest if found else 0
        squares = each(_square, deltas)
        for model in range(len(squares)):
            energies[place, model] += squares[model]
    return differ


@compiled
def _energies_of(arrays: Arrays, bin_: int) -> tuple[np.float64, ...]:
    """Return the sums of the task vectors' squares over the entries whose variance is in a bin."""
    sums = each_with(_nothing, arrays[1:], bin_)
    for k in range(arrays[0].size):
        deltas = each_with(delta, arrays[1:], k, load(arrays[0], k))
        if int(bin_of(_variance(deltas))) == bin_:
            sums = each(_plus, sums, each(_square, deltas))
    return sums


@inlined
def _unless(value: Any, condition: Any) -> Any:
    return _ZERO if condition else value


@inlined
def _plus(value: Any, other: Any) -> Any:
    return value + other


@inlined
def _square(value: Any) -> Any:
    return np.float64(value) * np.float64(value)


@inlined
def _differs(value: Any, other: Any) -> Any:
    return np.float32(1) if value != other else _ZERO


@inlined
def _nothing(_model: Any, _bin: Any) -> Any:
    return np.float64(0)


@compiled
def _extreme_variances(arrays: Any) -> tuple[int, int]:
    return extremes(_variance_of, arrays)


@compiled
def _count_variances(arrays: Any, lowest: Any, counts: Any, zeros: Any) -> None:
    count(_variance_of, arrays, lowest, counts, zeros)


@compiled
def _place_variance(arrays: Any, bin_: Any, places: Any) -> int:
    return place(_variance_of, arrays, bin_, places)


_VARIANCE = Loops(_extreme_variances, _count_variances, _place_variance)
