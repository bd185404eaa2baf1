"""Which kernel a method has, and what the kernel is told: from parameters and kept statistics to plain numbers.

A kernel is found by the method's kind (a weighted sum, a mixture) or by its name; what it writes is the method's
result, rounded once to the storage dtype.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from evomerge.backends.weights.kernels import sums, votes
from evomerge.backends.weights.kernels.histograms import edge
from evomerge.backends.weights.kernels.work import UNIT, Work, floats
from evomerge.strategies.merge.averages import shares
from evomerge.strategies.merge.magnitudes import BINS, Band, Magnitudes
from evomerge.strategies.merge.masks import expert_key, highest_kept
from evomerge.strategies.merge.protocol import Along, Method
from evomerge.strategies.merge.sparsify import kept_count, kept_range
from evomerge.strategies.merge.ties import ballot
from evomerge.strategies.merge.whole import OfInputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evomerge.backends.weights.kernels.votes import Combine

Kernel = Callable[[Work], int]
"""Writes a tensor and returns how many of its elements are not finite. Raises what the method's formula raises."""


def kernel_of(method: Method) -> Kernel | None:
    """Return a method's kernel, or None where it works through its formula."""
    if method.coefficients is not None:
        return _coefficients
    if method.mixture is not None:
        return _mixture
    return _NAMED.get(method.name)


def _coefficients(work: Work) -> int:
    if work.method.coefficients is None:
        raise TypeError(f"{work.method.name} is no weighted sum")
    found = work.method.coefficients(work.ctx, work.params)
    if work.base is None:
        return _sum(work, None, work.inputs, np.array([found.inputs]), "tensor")
    whole = found.base + sum(found.inputs)
    return _sum(work, work.base, work.inputs, np.array([[whole, *found.inputs]]), "tensor")


def _mixture(work: Work) -> int:
    if work.method.mixture is None:
        raise TypeError(f"{work.method.name} is no mixture")
    along = work.method.mixture.along(work.ctx, work.params)
    weights = work.method.mixture.weights(work.ctx, work.params, work.products(along))
    if work.base is not None and work.method.mixture.of == "deltas":
        return _sum(work, work.base, work.inputs, weights, along)
    models = work.inputs if work.base is None else (work.base, *work.inputs)
    return _sum(work, None, models, weights, along)


def _sum(
    work: Work,
    base: "NDArray[np.generic] | None",
    models: "tuple[NDArray[np.generic], ...]",
    weights: "NDArray[np.float64]",
    along: Along,
) -> int:
    """Write the sum of models, or of a base and differences to it, with weights of shape (vectors, models)."""
    columns = work.columns

    def parts(begin: int, end: int) -> "tuple[NDArray[np.generic], ...]":
        return tuple(model[begin:end] for model in models)

    if along == "tensor":
        one = floats(weights[0])
        if base is None:
            return work.over(lambda b, e: sums.sum_of_models(parts(b, e), one, work.out[b:e], work.largest))
        return work.over(lambda b, e: sums.sum_of_deltas(base[b:e], parts(b, e), one, work.out[b:e], work.largest))

    own = tuple(np.ascontiguousarray(column, dtype=np.float32) for column in weights.T)
    of_models, of_deltas = (
        (sums.rows_of_models, sums.rows_of_deltas)
        if along == "row"
        else (sums.columns_of_models, sums.columns_of_deltas)
    )

    def rows(begin: int, end: int) -> int:
        span = slice(begin // columns, end // columns)
        told = tuple(weight[span] for weight in own) if along == "row" else own
        if base is None:
            return of_models(parts(begin, end), told, columns, work.out[begin:end], work.largest)
        return of_deltas(base[begin:end], parts(begin, end), told, columns, work.out[begin:end], work.largest)

    return work.over(rows, step=max(UNIT // columns, 1) * columns)


def _ties(work: Work) -> int:
    densities = work.params.numbers("density")
    of_model = work.params.choice("scope") == "model"

    def band_of(index: int) -> tuple[Band | None, Magnitudes | None]:
        return _whole_band(work, densities[index], index) if of_model else _band(work, densities[index], 0.0, index)

    return _banded(work, _merge_func(work), work.params.numbers("weight"), band_of)


def _breadcrumbs(work: Work) -> int:
    return _trimmed_tails(work, votes.summed, shares(work.params))


def _breadcrumbs_ties(work: Work) -> int:
    return _trimmed_tails(work, _merge_func(work), work.params.numbers("weight"))


def _trimmed_tails(work: Work, combine: "Combine", weights: Sequence[float]) -> int:
    densities, gamma = work.params.numbers("density"), work.params.numbers("gamma")
    return _banded(work, combine, weights, lambda i: _band(work, densities[i], gamma[i], i))


def _dare_linear(work: Work) -> int:
    return _masked(work, votes.summed, shares(work.params))


def _dare_ties(work: Work) -> int:
    return _masked(work, _merge_func(work), work.params.numbers("weight"))


def _merge_func(work: Work) -> "Combine":
    return {"mean": votes.agreeing_mean, "sum": votes.agreeing_sum, "max": votes.agreeing_max}[
        work.params.choice("merge_func")
    ]


class _Bounds:
    """An input's band as bounds on float32 magnitudes, which change at one or two flat indices of the tensor."""

    def __init__(self, work: Work, index: int, band: Band | None, before: Magnitudes | None) -> None:
        def cut(bin_: int, places: int) -> int:
            passed = 0 if before is None or bin_ == BINS else int(before.counts[bin_])
            return work.histogram(index).cut(bin_, places - passed) if bin_ < BINS else 0

        self.low, self.high = (-1, BINS) if band is None else (band.low, band.high)
        self.cuts = (0, 0)
        if band is not None:
            self.cuts = cut(band.low, band.low_places), cut(band.high, band.high_places)

    def at(self, index: int) -> tuple[np.float32, np.float32]:
        """Return the bounds for an element."""
        low = self.low if index < self.cuts[0] else self.low + 1
        high = self.high if index < self.cuts[1] else self.high + 1
        return edge(low), edge(high)


def _banded(
    work: Work,
    combine: "Combine",
    weights: Sequence[float],
    band_of: "Callable[[int], tuple[Band | None, Magnitudes | None]]",
) -> int:
    order = ballot(work.ctx, weights)
    bounds = [_Bounds(work, i, *band_of(i)) for i in order]
    own, scale = floats([weights[i] for i in order]), np.float32(work.params.number("scale"))

    def part(begin: int, end: int) -> int:
        return votes.banded(
            combine,
            work.origin[begin:end],
            tuple(work.inputs[i][begin:end] for i in order),
            tuple(bound.at(begin) for bound in bounds),
            own,
            scale,
            work.out[begin:end],
            work.largest,
        )

    return work.over(part, cuts=[cut for bound in bounds for cut in bound.cuts])


def _masked(work: Work, combine: "Combine", weights: Sequence[float]) -> int:
    order = ballot(work.ctx, weights)
    densities = work.params.numbers("density")
    masks = tuple(
        (
            np.uint64(expert_key(work.ctx.seed, work.ctx.name, work.ctx.fingerprints[i])),
            np.int32(highest_kept(densities[i])),
        )
        for i in order
    )
    l1 = work.params.choice("rescale") == "l1"
    factors = floats(
        [_l1_factor(work, i, mask) if l1 else 1 / densities[i] for i, mask in zip(order, masks, strict=True)]
    )
    own, scale = floats([weights[i] for i in order]), np.float32(work.params.number("scale"))

    def part(begin: int, end: int) -> int:
        return votes.masked(
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
    pieces = work.gather(lambda b, e: votes.mask_masses(work.origin[b:e], model[b:e], mask, b))
    whole, kept = (sum(mass) for mass in zip(*pieces, strict=True))
    return whole / kept if kept > 0 else 1.0


def _band(work: Work, density: float, gamma: float, index: int) -> tuple[Band | None, None]:
    first, last = kept_range(work.out.size, density, gamma)
    return (None if (first, last) == (0, work.out.size) else work.histogram(index).band(first, last)), None


def _whole_band(work: Work, density: float, index: int) -> tuple[Band, Magnitudes | None]:
    whole = work.ctx.whole[0]
    total = cast("OfInputs[Magnitudes]", whole.total).each[index]
    before = None if whole.before is None else cast("OfInputs[Magnitudes]", whole.before).each[index]
    return total.band(0, kept_count(total.size, density)), before


_NAMED: Mapping[str, Kernel] = {
    "breadcrumbs": _breadcrumbs,
    "breadcrumbs_ties": _breadcrumbs_ties,
    "dare_linear": _dare_linear,
    "dare_ties": _dare_ties,
    "ties": _ties,
}
