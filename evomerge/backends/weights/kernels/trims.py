"""Sums and sign votes over the entries of task vectors whose magnitudes lie within a band: TIES and Breadcrumbs.

A band is told as bounds on float32 magnitudes. Where it ends among equal entries, the bounds change at the index of the
last that is kept, and the tensor is worked on in parts.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from evomerge.backends.weights.kernels.histograms import DIFFERENCE, edge, of_delta
from evomerge.backends.weights.kernels.jit import compiled, inlined
from evomerge.backends.weights.kernels.numbers import load, load_pair, max_size, size_of, store, store_pair
from evomerge.backends.weights.kernels.tuples import each, each_with, item, minus
from evomerge.backends.weights.kernels.votes import Combine, agreeing_max, agreeing_mean, agreeing_sum, summed
from evomerge.backends.weights.kernels.work import Work, floats
from evomerge.strategies.merge.averages import shares
from evomerge.strategies.merge.magnitudes import BINS, Band, Magnitudes
from evomerge.strategies.merge.sparsify import kept_count, kept_range
from evomerge.strategies.merge.ties import ballot
from evomerge.strategies.merge.whole import OfInputs

if TYPE_CHECKING:
    from evomerge.backends.weights.kernels.numbers import Elements

_ZERO = np.float32(0)


def ties(work: Work) -> int:
    """TIES: trimmed of each tensor, or of the whole model."""
    densities = work.params.numbers("density")
    of_model = work.params.choice("scope") == "model"

    def band_of(index: int) -> tuple[Band | None, Magnitudes | None]:
        return _whole_band(work, densities[index], index) if of_model else _band(work, densities[index], 0.0, index)

    return _banded(work, _VOTES[work.params.choice("merge_func")], work.params.numbers("weight"), band_of)


def breadcrumbs(work: Work) -> int:
    """Breadcrumbs: the sum of what is left between both tails."""
    return _trimmed_tails(work, _sum, shares(work.params))


def breadcrumbs_ties(work: Work) -> int:
    """Breadcrumbs with the vote of TIES."""
    return _trimmed_tails(work, _VOTES[work.params.choice("merge_func")], work.params.numbers("weight"))


def _trimmed_tails(work: Work, kernel: Callable[..., int], weights: Sequence[float]) -> int:
    densities, gamma = work.params.numbers("density"), work.params.numbers("gamma")
    return _banded(work, kernel, weights, lambda i: _band(work, densities[i], gamma[i], i))


class Bounds:
    """A band as bounds on float32 magnitudes, which change at one or two flat indices of the tensor.

    `cut(bin, places)` returns the index before which so many entries of a bin stand.
    """

    def __init__(self, band: Band | None, cut: Callable[[int, int], int]) -> None:
        self.low, self.high = (-1, BINS) if band is None else (band.low, band.high)
        self.cuts = (0, 0)
        if band is not None:
            ends = ((band.low, band.low_places), (band.high, band.high_places))
            low, high = (cut(bin_, places) if bin_ < BINS else 0 for bin_, places in ends)
            self.cuts = low, high

    def at(self, index: int) -> tuple[np.uint32, np.uint32]:
        """Return the lower bound's bits for an element, and by how much those of the upper one are more."""
        low = self.low if index < self.cuts[0] else self.low + 1
        high = self.high if index < self.cuts[1] else self.high + 1
        return _span(low, high)


@lru_cache(1 << 12)
def _span(low: int, high: int) -> tuple[np.uint32, np.uint32]:
    """Return the bits of the smallest magnitude in a bin, and how many more are below the bin `high`."""
    first, last = (int(edge(bin_).view(np.uint32)) for bin_ in (low, high))
    return np.uint32(first), np.uint32(max(last - first, 0))


def _bounds(work: Work, index: int, band: Band | None, before: Magnitudes | None) -> Bounds:
    def cut(bin_: int, places: int) -> int:
        passed = 0 if before is None else int(before.counts[bin_])
        return of_delta(work.sources, index).cut(DIFFERENCE, work.sources.pair(index), bin_, places - passed)

    return Bounds(band, cut)


def _banded(
    work: Work,
    kernel: Callable[..., int],
    weights: Sequence[float],
    band_of: Callable[[int], tuple[Band | None, Magnitudes | None]],
) -> int:
    order = ballot(work.ctx, weights)
    bounds = [_bounds(work, i, *band_of(i)) for i in order]
    own, scale = floats([weights[i] for i in order]), np.float32(work.params.number("scale"))

    def part(begin: int, end: int) -> int:
        return kernel(
            work.origin[begin:end],
            tuple(work.inputs[i][begin:end] for i in order),
            tuple(bound.at(begin) for bound in bounds),
            own,
            scale,
            work.out[begin:end],
            work.largest,
        )

    return work.over(part, cuts=[cut for bound in bounds for cut in bound.cuts])


def _band(work: Work, density: float, gamma: float, index: int) -> tuple[Band | None, None]:
    first, last = kept_range(work.out.size, density, gamma)
    return (None if (first, last) == (0, work.out.size) else of_delta(work.sources, index).band(first, last)), None


def _whole_band(work: Work, density: float, index: int) -> tuple[Band, Magnitudes | None]:
    whole = work.ctx.whole[0]
    total = cast("OfInputs[Magnitudes]", whole.total).each[index]
    before = None if whole.before is None else cast("OfInputs[Magnitudes]", whole.before).each[index]
    return total.band(0, kept_count(total.size, density)), before


@inlined
def _pass(
    combine: Combine,
    base: "Elements",
    models: "tuple[Elements, ...]",
    bands: tuple[tuple[np.uint32, np.uint32], ...],
    weights: tuple[np.float32, ...],
    scale: np.float32,
    out: "Elements",
    largest: np.float32,
) -> int:
    """Combine the entries whose bits without the sign are at least bands[i][0], by less than bands[i][1].

    Returns 1 where a result is larger than `largest` or no number, else 0.
    """
    most = np.uint32(0)
    for pair in range(out.size // 2):
        origins, pairs = load_pair(base, pair), each_with(load_pair, models, pair)
        first = _element(combine, origins[0], each_with(item, pairs, 0), bands, weights, scale)
        second = _element(combine, origins[1], each_with(item, pairs, 1), bands, weights, scale)
        most = max_size(max_size(most, first), second)
        store_pair(out, pair, first, second)
    if out.size % 2:
        last = out.size - 1
        value = _element(combine, load(base, last), each_with(load, models, last), bands, weights, scale)
        most = max_size(most, value)
        store(out, last, value)
    return 1 if most > size_of(largest) else 0


@inlined
def _element(combine: Any, origin: Any, values: Any, bands: Any, weights: Any, scale: Any) -> Any:
    kept = each(_kept, each_with(minus, values, origin), bands, weights)
    return origin + scale * combine(kept, weights)


@inlined
def _kept(value: Any, band: Any, weight: Any) -> Any:
    return value * weight if np.uint32(size_of(value) - band[0]) < band[1] else _ZERO


@compiled
def _sum(base: Any, models: Any, bands: Any, weights: Any, scale: Any, out: Any, largest: Any) -> int:
    return _pass(summed, base, models, bands, weights, scale, out, largest)


@compiled
def _agreeing_mean(base: Any, models: Any, bands: Any, weights: Any, scale: Any, out: Any, largest: Any) -> int:
    return _pass(agreeing_mean, base, models, bands, weights, scale, out, largest)


@compiled
def _agreeing_sum(base: Any, models: Any, bands: Any, weights: Any, scale: Any, out: Any, largest: Any) -> int:
    return _pass(agreeing_sum, base, models, bands, weights, scale, out, largest)


@compiled
def _agreeing_max(base: Any, models: Any, bands: Any, weights: Any, scale: Any, out: Any, largest: Any) -> int:
    return _pass(agreeing_max, base, models, bands, weights, scale, out, largest)


_VOTES: Mapping[str, Callable[..., int]] = {"mean": _agreeing_mean, "sum": _agreeing_sum, "max": _agreeing_max}
