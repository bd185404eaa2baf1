"""What the kernels are told for a method: found by the method's kind (a weighted sum, a mixture), or by its name."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from evomerge.backends.weights.gpu.batches import Job
from evomerge.backends.weights.gpu.ends import BY_RANK
from evomerge.backends.weights.gpu.histograms import DeviceHistogram
from evomerge.backends.weights.gpu.work import DeviceWork, kind
from evomerge.strategies.merge.averages import shares
from evomerge.strategies.merge.magnitudes import BINS, Magnitudes
from evomerge.strategies.merge.masks import expert_key, highest_kept
from evomerge.strategies.merge.mixtures import products, vectors
from evomerge.strategies.merge.protocol import Method, Mixture, Parameters
from evomerge.strategies.merge.sparsify import kept_count, kept_range
from evomerge.strategies.merge.ties import ballot
from evomerge.strategies.merge.whole import OfInputs

if TYPE_CHECKING:
    from torch import Tensor

Ends = Callable[[int], list[tuple[int, int]]]
"""Returns the ends of an input's band, by its index: the bin of each, and a number; see `ends`."""

_NO_LOW_END = -1, 0
_NO_HIGH_END = BINS, 0
_NOTHING = BINS, 0
_NOT_COUNTED = 0, 0, 0, 1, 0, 0  # instead of what is told of a histogram


def job_of(work: DeviceWork) -> Job | None:
    """Return the rows for a tensor, or None where its method works through its formula. Raises what that raises."""
    make = _maker(work.merge.method)
    return None if make is None or not work.readable else make(work)


def has_kernel(method: Method) -> bool:
    """Return whether a method works through a kernel, where its tensors can be read by one."""
    return _maker(method) is not None


def _maker(method: Method) -> Callable[[DeviceWork], Job] | None:
    if method.coefficients is not None:
        return _coefficients
    if method.mixture is not None:
        return _mixture
    return _NAMED.get(method.name)


def _coefficients(work: DeviceWork) -> Job:
    method = work.merge.method
    if method.coefficients is None:
        raise TypeError(f"{method.name} is no weighted sum")
    found = method.coefficients(work.ctx, work.params)
    if work.base is None:
        return _sum(work, work.inputs, (0.0, *found.inputs), based=False)
    return _sum(work, work.inputs, (found.base + sum(found.inputs), *found.inputs), based=True)


def _sum(work: DeviceWork, models: "Sequence[Tensor]", weights: Sequence[float], *, based: bool) -> Job:
    how = "differences" if based else "models"
    return work.job(how, "tensor", models, weights, based=based, words=(0, work.columns, 1))


def _mixture(work: DeviceWork) -> Job:
    import torch

    mixed = work.merge.method.mixture
    if mixed is None:
        raise TypeError(f"{work.merge.method.name} is no mixture")
    along = mixed.along(work.ctx, work.params)
    found = work.keep(
        f"products of {mixed.of} by {along}",
        range(len(work.inputs)),
        lambda: products(vectors(mixed, *work.floats()), along),
        lambda made: made.nbytes,
    )
    weights = mixed.weights(work.ctx, work.params, found)
    models, based = _summed(work, mixed)
    if along == "tensor":
        return _sum(work, models, weights[0].tolist() if based else (0.0, *weights[0].tolist()), based=based)
    own = torch.zeros((1 + len(models), len(weights)), dtype=torch.float32)
    own[0 if based else 1 :] = torch.from_numpy(weights.T)
    moved = own.to(work.merge.out.device, non_blocking=True)
    words = moved.data_ptr(), work.columns, len(weights)
    how, nothing = "differences" if based else "models", (0.0,) * len(own)
    return work.job(how, along, models, nothing, based=based, words=words, kept=(moved,))


def _summed(work: DeviceWork, mixed: Mixture) -> "tuple[Sequence[Tensor], bool]":
    """Return the models that a mixture sums, and whether it does so by their differences to the base."""
    if work.base is None or mixed.of == "deltas":
        return work.inputs, work.base is not None
    return (work.base, *work.inputs), False


def _nearswap(work: DeviceWork) -> Job:
    return _combined(work, "clip", (1.0,), scale=1.0, told=work.params.number("t"))


def _emr(work: DeviceWork) -> Job:
    weights = work.params.numbers("weight")
    return _combined(work, "agreeing max", weights, ballot(work.ctx, weights))


def _magmax(work: DeviceWork) -> Job:
    return _combined(work, "farthest", work.params.numbers("weight"))


def _consensus(work: DeviceWork) -> Job:
    weights, thresholds = work.params.numbers("weight"), work.params.numbers("threshold")
    least = work.params.number("least_models")
    return _combined(work, "shared", weights, ballot(work.ctx, weights), told=least, more=thresholds)


def _ram(work: DeviceWork) -> Job:
    return _combined(work, "changed", (1.0,) * len(work.inputs), told=work.params.number("epsilon"))


def _combined(
    work: DeviceWork,
    rule: str,
    weights: Sequence[float],
    order: Sequence[int] | None = None,
    *,
    scale: float | None = None,
    told: float = 0.0,
    more: Sequence[float] | None = None,
) -> Job:
    order = range(len(weights)) if order is None else order
    more = (0.0,) * len(weights) if more is None else more
    scale = work.params.number("scale") if scale is None else scale
    numbers = [scale, told, *(weights[index] for index in order), *(more[index] for index in order)]
    return work.job("all", rule, [work.inputs[index] for index in order], numbers)


def _dare_linear(work: DeviceWork) -> Job:
    return _dropped(work, "sum", shares(work.params))


def _dare_ties(work: DeviceWork) -> Job:
    return _dropped(work, _vote(work.params), work.params.numbers("weight"))


def _dropped(work: DeviceWork, rule: str, weights: Sequence[float]) -> Job:
    ctx, densities = work.ctx, work.params.numbers("density")
    order = ballot(ctx, weights)
    keys = [_signed(expert_key(ctx.seed, ctx.name, ctx.fingerprints[index])) for index in order]
    words = [*keys, *(highest_kept(densities[index]) for index in order)]
    factors = [1 / densities[index] for index in order]
    numbers = [work.params.number("scale"), 0.0, *(weights[index] for index in order), *factors]
    how = "drop l1" if work.params.choice("rescale") == "l1" else "drop"
    return work.job(how, rule, [work.inputs[index] for index in order], numbers, words=words)


def _ties(work: DeviceWork) -> Job:
    densities, of_model = work.params.numbers("density"), work.params.choice("scope") == "model"

    def ends(index: int) -> list[tuple[int, int]]:
        if of_model:
            return [_end_in_model(work, densities[index], index)]
        kept = kept_count(work.size, densities[index])
        return [_NO_LOW_END if kept == work.size else (BY_RANK, kept) if kept else _NOTHING]

    return _banded(work, "low", _vote(work.params), work.params.numbers("weight"), ends)


def _breadcrumbs(work: DeviceWork) -> Job:
    return _banded(work, "band", "sum", shares(work.params), lambda index: _without_tails(work, index))


def _breadcrumbs_ties(work: DeviceWork) -> Job:
    weights = work.params.numbers("weight")
    return _banded(work, "band", _vote(work.params), weights, lambda index: _without_tails(work, index))


def _without_tails(work: DeviceWork, index: int) -> list[tuple[int, int]]:
    own = work.params.inputs[index]
    first, last = kept_range(work.size, float(own["density"]), float(own["gamma"]))
    low = _NO_LOW_END if last == work.size else (BY_RANK, last) if last > first else _NOTHING
    return [low, (BY_RANK, first) if first else _NO_HIGH_END]


def _end_in_model(work: DeviceWork, density: float, index: int) -> tuple[int, int]:
    """Return the low end of an input's band in this tensor where the band is one of the whole model."""
    whole = work.ctx.whole[0]
    total = cast("OfInputs[Magnitudes]", whole.total).each[index]
    before = None if whole.before is None else cast("OfInputs[Magnitudes]", whole.before).each[index]
    band = total.band(0, kept_count(total.size, density))
    if band.low >= BINS:
        return _NOTHING
    return band.low, band.low_places - (0 if before is None else int(before.counts[band.low]))


def _banded(work: DeviceWork, how: str, rule: str, weights: Sequence[float], ends: Ends) -> Job:
    order, origin = ballot(work.ctx, weights), work.origin()
    address, of_base = origin.data_ptr(), kind(origin)
    rows: list[tuple[int, ...]] = []
    histograms: list[DeviceHistogram] = []
    for index in order:
        model = work.inputs[index]
        where = address, model.data_ptr(), of_base, kind(model)
        for bin_, number in ends(index):
            counted = _NOT_COUNTED
            if bin_ == BY_RANK or (0 <= bin_ < BINS and number > 0):
                histograms.append(work.histogram(index))
                counted = histograms[-1].words
            rows.append((*counted, *where, bin_, number))
    numbers = [work.params.number("scale"), 0.0, *(weights[index] for index in order), *(0.0 for _ in order)]
    models = [work.inputs[index] for index in order]
    return work.job(how, rule, models, numbers, ends=rows, kept=tuple(histograms))


def _vote(params: Parameters) -> str:
    return f"agreeing {params.choice('merge_func')}"


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


_NAMED: Mapping[str, Callable[[DeviceWork], Job]] = {
    "breadcrumbs": _breadcrumbs,
    "breadcrumbs_ties": _breadcrumbs_ties,
    "consensus": _consensus,
    "dare_linear": _dare_linear,
    "dare_ties": _dare_ties,
    "emr": _emr,
    "magmax": _magmax,
    "nearswap": _nearswap,
    "ram": _ram,
    "ties": _ties,
}
