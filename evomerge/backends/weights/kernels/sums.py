"""Weighted sums of models: with one weight a model for the whole tensor, or one for each of its rows or columns."""

from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.backends.weights.kernels.jit import compiled, inlined
from evomerge.backends.weights.kernels.numbers import load, store
from evomerge.backends.weights.kernels.tuples import each, each_with, total

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evomerge.backends.weights.kernels.numbers import Elements


@inlined
def _delta(source: Any, index: Any, origin: Any) -> Any:
    return load(source, index) - origin


@inlined
def _times(value: Any, weight: Any) -> Any:
    return value * weight


@inlined
def _at(weights: Any, index: Any) -> Any:
    return weights[index]


@compiled
def sum_of_models(
    models: "tuple[Elements, ...]", weights: tuple[np.float32, ...], out: "Elements", largest: np.float32
) -> int:
    """Write sum w_i theta_i; return how many elements are larger than `largest` or no number."""
    bad = 0
    for k in range(out.size):
        value = total(each(_times, each_with(load, models, k), weights))
        bad += 0 if abs(value) <= largest else 1
        store(out, k, value)
    return bad


@compiled
def sum_of_deltas(
    base: "Elements",
    models: "tuple[Elements, ...]",
    weights: tuple[np.float32, ...],
    out: "Elements",
    largest: np.float32,
) -> int:
    """Write w_0 theta_0 + sum w_i (theta_i - theta_0); return how many are larger than `largest` or no number."""
    bad = 0
    for k in range(out.size):
        origin = load(base, k)
        value = weights[0] * origin + total(each(_times, each_with(_delta, models, k, origin), weights[1:]))
        bad += 0 if abs(value) <= largest else 1
        store(out, k, value)
    return bad


@compiled
def rows_of_models(
    models: "tuple[Elements, ...]",
    weights: "tuple[NDArray[np.float32], ...]",
    columns: int,
    out: "Elements",
    largest: np.float32,
) -> int:
    """Write what `sum_of_models` writes, with weights of their own for each row: weights[i] has one for each."""
    bad = 0
    for row in range(out.size // columns):
        own = each_with(_at, weights, row)
        for k in range(row * columns, (row + 1) * columns):
            value = total(each(_times, each_with(load, models, k), own))
            bad += 0 if abs(value) <= largest else 1
            store(out, k, value)
    return bad


@compiled
def rows_of_deltas(
    base: "Elements",
    models: "tuple[Elements, ...]",
    weights: "tuple[NDArray[np.float32], ...]",
    columns: int,
    out: "Elements",
    largest: np.float32,
) -> int:
    """Write what `sum_of_deltas` writes, with weights of their own for each row."""
    bad = 0
    for row in range(out.size // columns):
        own = each_with(_at, weights, row)
        for k in range(row * columns, (row + 1) * columns):
            origin = load(base, k)
            value = own[0] * origin + total(each(_times, each_with(_delta, models, k, origin), own[1:]))
            bad += 0 if abs(value) <= largest else 1
            store(out, k, value)
    return bad


@compiled
def columns_of_models(
    models: "tuple[Elements, ...]",
    weights: "tuple[NDArray[np.float32], ...]",
    columns: int,
    out: "Elements",
    largest: np.float32,
) -> int:
    """Write what `sum_of_models` writes, with weights of their own for each column."""
    bad = 0
    for row in range(out.size // columns):
        for column in range(columns):
            k = row * columns + column
            value = total(each(_times, each_with(load, models, k), each_with(_at, weights, column)))
            bad += 0 if abs(value) <= largest else 1
            store(out, k, value)
    return bad


@compiled
def columns_of_deltas(
    base: "Elements",
    models: "tuple[Elements, ...]",
    weights: "tuple[NDArray[np.float32], ...]",
    columns: int,
    out: "Elements",
    largest: np.float32,
) -> int:
    """Write what `sum_of_deltas` writes, with weights of their own for each column."""
    bad = 0
    for row in range(out.size // columns):
        for column in range(columns):
            k = row * columns + column
            own = each_with(_at, weights, column)
            origin = load(base, k)
            value = own[0] * origin + total(each(_times, each_with(_delta, models, k, origin), own[1:]))
            bad += 0 if abs(value) <= largest else 1
            store(out, k, value)
    return bad
