"""Weighted sums of models: with one weight a model for the whole tensor, or one for each of its rows or columns."""

from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.backends.weights.kernels.jit import compiled, inlined
from evomerge.backends.weights.kernels.numbers import delta, load, store
from evomerge.backends.weights.kernels.products import products
from evomerge.backends.weights.kernels.tuples import each, each_with, times, total
from evomerge.backends.weights.kernels.work import UNIT, Work, floats
from evomerge.strategies.merge.protocol import Along, Mixture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evomerge.backends.weights.kernels.numbers import Elements


def coefficients(work: Work) -> int:
    """Write a method's weighted sum."""
    if work.method.coefficients is None:
        raise TypeError(f"{work.method.name} is no weighted sum")
    found = work.method.coefficients(work.ctx, work.params)
    if not work.has_base:
        return _sum(work, None, work.inputs, np.array([found.inputs]), "tensor")
    whole = found.base + sum(found.inputs)
    return _sum(work, work.origin, work.inputs, np.array([[whole, *found.inputs]]), "tensor")


def mixture(work: Work) -> int:
    """Write a sum whose weights follow from inner products, which are made once a study."""
    if work.method.mixture is None:
        raise TypeError(f"{work.method.name} is no mixture")
    along = work.method.mixture.along(work.ctx, work.params)
    weights = work.method.mixture.weights(work.ctx, work.params, _products(work, work.method.mixture, along))
    if work.has_base and work.method.mixture.of == "deltas":
        return _sum(work, work.origin, work.inputs, weights, along)
    models = (work.origin, *work.inputs) if work.has_base else work.inputs
    return _sum(work, None, models, weights, along)


def _products(work: Work, mixed: Mixture, along: Along) -> "NDArray[np.float64]":
    return work.sources.keep(
        f"products of {mixed.of} by {along}",
        range(len(work.inputs)),
        lambda: products(work, mixed, along),
        lambda found: found.nbytes,
    )


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
            return work.over(lambda b, e: sum_of_models(parts(b, e), one, work.out[b:e], work.largest))
        return work.over(lambda b, e: sum_of_deltas(base[b:e], parts(b, e), one, work.out[b:e], work.largest))

    own = tuple(np.ascontiguousarray(column, dtype=np.float32) for column in weights.T)
    of_models, of_deltas = (
        (rows_of_models, rows_of_deltas) if along == "row" else (columns_of_models, columns_of_deltas)
    )

    def rows(begin: int, end: int) -> int:
        span = slice(begin // columns, end // columns)
        told = tuple(weight[span] for weight in own) if along == "row" else own
        if base is None:
            return of_models(parts(begin, end), told, columns, work.out[begin:end], work.largest)
        return of_deltas(base[begin:end], parts(begin, end), told, columns, work.out[begin:end], work.largest)

    return work.over(rows, step=max(UNIT // columns, 1) * columns)


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
        value = total(each(times, each_with(load, models, k), weights))
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
        value = weights[0] * origin + total(each(times, each_with(delta, models, k, origin), weights[1:]))
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
            value = total(each(times, each_with(load, models, k), own))
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
            value = own[0] * origin + total(each(times, each_with(delta, models, k, origin), own[1:]))
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
            value = total(each(times, each_with(load, models, k), each_with(_at, weights, column)))
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
            value = own[0] * origin + total(each(times, each_with(delta, models, k, origin), own[1:]))
            bad += 0 if abs(value) <= largest else 1
            store(out, k, value)
    return bad
