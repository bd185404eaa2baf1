"""Sums and sign votes over task vectors of which only some entries count: TIES, DARE and their relatives.

Which entries count is said for each model by limits of its own: magnitudes from one bound up to another (a band), or
random numbers below a bound (a mask). What is kept is weighted, combined, scaled, and added to the base.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.backends.weights.kernels.jit import compiled, inlined
from evomerge.backends.weights.kernels.numbers import load, store
from evomerge.backends.weights.kernels.tuples import each, each_with, total
from evomerge.backends.weights.kernels.tuples import largest as largest_of

if TYPE_CHECKING:
    from evomerge.backends.weights.kernels.numbers import Elements

Combine = Callable[[tuple[np.float32, ...], tuple[np.float32, ...]], np.float32]

_ZERO = np.float32(0)
_ONE = np.float32(1)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


@compiled
def banded(
    combine: Combine,
    base: "Elements",
    models: "tuple[Elements, ...]",
    bands: tuple[tuple[np.float32, np.float32], ...],
    weights: tuple[np.float32, ...],
    scale: np.float32,
    out: "Elements",
    largest: np.float32,
) -> int:
    """Combine the entries with a magnitude of at least bands[i][0] and below bands[i][1].

    Returns how many results are larger than `largest` or no number.
    """
    bad = 0
    for k in range(out.size):
        origin = load(base, k)
        kept = each(_inside, each_with(_delta, models, k, origin), bands)
        value = origin + scale * combine(each(_times, kept, weights), weights)
        bad += 0 if abs(value) <= largest else 1
        store(out, k, value)
    return bad


@compiled
def masked(
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
        words = each_with(_word, masks, first // 2 + pair)  # each serves two elements
        k = 2 * pair
        value = _masked(combine, base, models, k, each(_lower, words), masks, factors, weights, scale)
        bad += 0 if abs(value) <= largest else 1
        store(out, k, value)
        value = _masked(combine, base, models, k + 1, each(_upper, words), masks, factors, weights, scale)
        bad += 0 if abs(value) <= largest else 1
        store(out, k + 1, value)
    if out.size % 2:
        k = out.size - 1
        words = each_with(_word, masks, (first + k) // 2)
        value = _masked(combine, base, models, k, each(_lower, words), masks, factors, weights, scale)
        bad += 0 if abs(value) <= largest else 1
        store(out, k, value)
    return bad


@inlined
def _masked(
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
    kept = each(_drawn, each_with(_delta, models, k, origin), drawn, masks)
    return origin + scale * combine(each(_times, each(_times, kept, factors), weights), weights)


@compiled
def mask_masses(
    base: "Elements", model: "Elements", mask: tuple[np.uint64, np.int32], first: int
) -> tuple[np.float64, np.float64]:
    """Return the sum of all magnitudes of a task vector, and that of those which the mask keeps, in float64."""
    whole, kept = np.float64(0), np.float64(0)
    for k in range(base.size):
        size = abs(load(model, k) - load(base, k))
        word = _word(mask, (first + k) // 2)
        whole += size
        kept += size if (_upper(word) if (first + k) % 2 else _lower(word)) <= mask[1] else _ZERO
    return whole, kept


@inlined
def summed(values: Any, _weights: Any) -> Any:
    """Return the sum."""
    return total(values)


@inlined
def agreeing_mean(values: Any, weights: Any) -> Any:
    """Return the sum of the values that have the elected sign, over the sum of their weights' magnitudes."""
    positive = total(values) >= _ZERO
    agreeing = each_with(_signed, values, positive)
    mass = total(each(_mass, agreeing, weights))
    mean = total(agreeing) / (mass if mass > _ZERO else _ONE)
    return mean if positive else -mean


@inlined
def agreeing_sum(values: Any, _weights: Any) -> Any:
    """Return the sum of the values that have the elected sign."""
    positive = total(values) >= _ZERO
    result = total(each_with(_signed, values, positive))
    return result if positive else -result


@inlined
def agreeing_max(values: Any, _weights: Any) -> Any:
    """Return the largest of the values that have the elected sign."""
    positive = total(values) >= _ZERO
    result = largest_of(each_with(_signed, values, positive))
    return result if positive else -result


@inlined
def _delta(source: Any, index: Any, origin: Any) -> Any:
    return load(source, index) - origin


@inlined
def _times(value: Any, weight: Any) -> Any:
    return value * weight


@inlined
def _inside(value: Any, band: Any) -> Any:
    return value if band[0] <= abs(value) < band[1] else _ZERO


@inlined
def _drawn(value: Any, random: Any, mask: Any) -> Any:
    return value if random <= mask[1] else _ZERO


@inlined
def _word(mask: Any, number: Any) -> Any:
    """Return the word that decides on elements 2 * number and 2 * number + 1; see `strategies.merge.masks`."""
    word = mask[0] + (np.uint64(number) + np.uint64(1)) * _GOLDEN
    word = (word ^ (word >> np.uint64(30))) * _FIRST
    word = (word ^ (word >> np.uint64(27))) * _SECOND
    return word ^ (word >> np.uint64(31))


@inlined
def _lower(word: Any) -> Any:
    return np.int32(word)


@inlined
def _upper(word: Any) -> Any:
    return np.int32(word >> np.uint64(32))


@inlined
def _signed(value: Any, positive: Any) -> Any:
    value = value if positive else -value
    return value if value > _ZERO else _ZERO


@inlined
def _mass(value: Any, weight: Any) -> Any:
    return abs(weight) if value > _ZERO else _ZERO
