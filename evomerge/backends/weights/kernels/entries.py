"""Methods in which an entry depends on nothing but the same entry of every model: EMR, MagMax, TALL masks, and others.

All are one loop: task vectors are weighted, combined, scaled, and added to the base. RAM+ counts entries first.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.backends.weights.kernels.jit import compiled, inlined
from evomerge.backends.weights.kernels.numbers import delta, load, store
from evomerge.backends.weights.kernels.tuples import each, each_with, largest, times, total
from evomerge.backends.weights.kernels.votes import Combine, agreeing_max
from evomerge.backends.weights.kernels.work import Work, floats
from evomerge.strategies.merge.ties import ballot

if TYPE_CHECKING:
    from evomerge.backends.weights.kernels.numbers import Elements

Kernel = Callable[..., int]
"""`_pass` compiled for what it combines: code in which functions are arguments could not be kept."""

_ZERO = np.float32(0)
_ONE = np.float32(1)


def nearswap(work: Work) -> int:
    """NearSwap."""
    return _combined(work, _nearswap, (1.0,), np.float32(work.params.number("t")), 1.0)


def emr(work: Work) -> int:
    """EMR-Merging's unified model."""
    weights = work.params.numbers("weight")
    order = ballot(work.ctx, weights)
    told = floats([weights[index] for index in order])
    return _combined(work, _emr, weights, told, work.params.number("scale"), order)


def magmax(work: Work) -> int:
    """MagMax."""
    return _combined(work, _magmax, work.params.numbers("weight"), _ZERO, work.params.number("scale"))


def consensus(work: Work) -> int:
    """Consensus merging by TALL masks."""
    weights, thresholds = work.params.numbers("weight"), work.params.numbers("threshold")
    order = ballot(work.ctx, weights)
    told = floats([thresholds[index] for index in order]), np.float32(work.params.number("least_models"))
    return _combined(work, _consensus, weights, told, work.params.number("scale"), order)


def ram(work: Work) -> int:
    """RAM."""
    return _joined(work, [1.0] * len(work.inputs))


def ram_plus(work: Work) -> int:
    """RAM+, which reads its models twice: entries are counted first."""
    epsilon, models = np.float32(work.params.number("epsilon")), work.inputs
    counts = work.gather(lambda b, e: _count(work.origin[b:e], tuple(model[b:e] for model in models), epsilon))
    gain, limit = work.params.number("gain"), work.params.number("limit")
    gains: list[float] = []
    for index in range(len(models)):
        alone, shared = (sum(int(piece[which][index]) for piece in counts) for which in (0, 1))
        gains.append(1 + gain * min(shared / alone, limit) if alone else 1.0)
    return _joined(work, gains)


def _joined(work: Work, gains: Sequence[float]) -> int:
    told = np.float32(work.params.number("epsilon")), floats(gains)
    return _combined(work, _ram, [1.0] * len(gains), told, work.params.number("scale"))


def _combined(
    work: Work, kernel: Kernel, weights: Sequence[float], told: Any, scale: float, order: Sequence[int] | None = None
) -> int:
    """Write the base plus `scale` times what `kernel` makes of weighted task vectors, in an order, and of `told`."""
    order = range(len(weights)) if order is None else order
    own, factor = floats([weights[index] for index in order]), np.float32(scale)

    def part(begin: int, end: int) -> int:
        models = tuple(work.inputs[index][begin:end] for index in order)
        return kernel(work.origin[begin:end], models, own, told, factor, work.out[begin:end], work.largest)

    return work.over(part)


@inlined
def _pass(
    combine: Combine,
    base: "Elements",
    models: "tuple[Elements, ...]",
    weights: tuple[np.float32, ...],
    told: Any,
    scale: np.float32,
    out: "Elements",
    most: np.float32,
) -> int:
    """Return how many results are larger than `most` or no number."""
    bad = 0
    for k in range(out.size):
        origin = load(base, k)
        value = origin + scale * combine(each(times, each_with(delta, models, k, origin), weights), told)
        bad += 0 if abs(value) <= most else 1
        store(out, k, value)
    return bad


@compiled
def _count(base: "Elements", models: "tuple[Elements, ...]", epsilon: np.float32) -> tuple[Any, Any]:
    """Return for each model the number of entries that it alone changed, and of those that others changed as well."""
    alone = each_with(_nothing, models, epsilon)
    shared = alone
    for k in range(base.size):
        changed = each_with(_changed, each_with(delta, models, k, load(base, k)), epsilon)
        changes = total(changed)
        alone = each(_plus, alone, each_with(_if, changed, changes == _ONE))
        shared = each(_plus, shared, each_with(_if, changed, changes > _ONE))
    return alone, shared


@inlined
def _clipped(values: Any, most: Any) -> Any:
    """Return the only value, or the nearest of a magnitude of at most `most`."""
    value = values[0]
    value = most if value > most else value
    return -most if value < -most else value


@inlined
def _farthest(values: Any, _: Any) -> Any:
    """Return the value of largest magnitude, of two opposite ones the positive."""
    highest = largest(values)
    lowest = -largest(each(_opposite, values))
    return highest if highest >= -lowest else lowest


@inlined
def _shared(values: Any, told: Any) -> Any:
    """Return the sum where it matters to at least told[1] models, in terms of their thresholds told[0]; else zero."""
    together = total(values)
    limits = each(times, each_with(_distance, values, together), told[0])
    votes = total(each(_exceeds, values, limits))
    return together if votes >= told[1] else _ZERO


@inlined
def _mean_of_changes(values: Any, told: Any) -> Any:
    """Return the mean of values above told[0] in magnitude; one that is alone times its model's gain of told[1]."""
    changed = each_with(_changed, values, told[0])
    changes = total(changed)
    kept = each(_if_changed, values, changed)
    whole = total(each(times, kept, told[1])) if changes == _ONE else total(kept)
    return whole / (changes if changes > _ONE else _ONE)


@inlined
def _opposite(value: Any) -> Any:
    return -value


@inlined
def _distance(value: Any, together: Any) -> Any:
    return abs(together - value)


@inlined
def _exceeds(value: Any, limit: Any) -> Any:
    return _ONE if abs(value) > limit else _ZERO


@inlined
def _changed(value: Any, epsilon: Any) -> Any:
    return _ONE if abs(value) > epsilon else _ZERO


@inlined
def _if_changed(value: Any, changed: Any) -> Any:
    return value if changed == _ONE else _ZERO


@inlined
def _nothing(_model: Any, _epsilon: Any) -> Any:
    return np.uint32(0)


@inlined
def _if(changed: Any, condition: Any) -> Any:
    return np.uint32(1) if condition and changed == _ONE else np.uint32(0)


@inlined
def _plus(count: Any, other: Any) -> Any:
    return np.uint32(count + other)  # numbers of 32 bits, of which the processor adds twice as many at a time


@compiled
def _nearswap(base: Any, models: Any, weights: Any, told: Any, scale: Any, out: Any, most: Any) -> int:
    return _pass(_clipped, base, models, weights, told, scale, out, most)


@compiled
def _emr(base: Any, models: Any, weights: Any, told: Any, scale: Any, out: Any, most: Any) -> int:
    return _pass(agreeing_max, base, models, weights, told, scale, out, most)


@compiled
def _magmax(base: Any, models: Any, weights: Any, told: Any, scale: Any, out: Any, most: Any) -> int:
    return _pass(_farthest, base, models, weights, told, scale, out, most)


@compiled
def _consensus(base: Any, models: Any, weights: Any, told: Any, scale: Any, out: Any, most: Any) -> int:
    return _pass(_shared, base, models, weights, told, scale, out, most)


@compiled
def _ram(base: Any, models: Any, weights: Any, told: Any, scale: Any, out: Any, most: Any) -> int:
    return _pass(_mean_of_changes, base, models, weights, told, scale, out, most)
