"""The inner products that mixtures' weights follow from: of whole tensors, of their rows, or of their columns.

The same numbers as `strategies.merge.mixtures.products`, several times as fast: products of float32 in float64, summed
piece by piece, so that they depend neither on the number of threads nor on what else runs.
"""

from typing import TYPE_CHECKING

import numpy as np

from evomerge.backends.weights.kernels.jit import compiled, compiled_in_any_order
from evomerge.backends.weights.kernels.numbers import Elements, delta, load
from evomerge.backends.weights.kernels.work import Work
from evomerge.strategies.merge.protocol import Along, Mixture

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIECE = 1 << 16
"""Elements of each model that are taken up at a time: a few models of these stay in a core's cache."""


def products(work: Work, mixed: Mixture, along: Along) -> "NDArray[np.float64]":
    """Return all inner products of a mixture's vectors: float64, of shape (vectors, models, models)."""
    columns = work.columns
    found = work.gather(
        lambda begin, end: _piece(work, mixed, along, begin, end), step=max(_PIECE // columns, 1) * columns
    )
    return np.concatenate(found) if along == "row" else np.add.reduce(found)


def _piece(work: Work, mixed: Mixture, along: Along, begin: int, end: int) -> "NDArray[np.float64]":
    first = (work.origin,) if work.has_base else ()
    values = np.empty((len(first) + len(work.inputs), end - begin), np.float32)
    for source, row in zip(first, values, strict=False):
        _fill(source[begin:end], row)
    for source, row in zip(work.inputs, values[len(first) :], strict=True):
        if first and mixed.of == "deltas":
            _fill_delta(work.origin[begin:end], source[begin:end], row)
        else:
            _fill(source[begin:end], row)
    if along == "column":
        return np.ascontiguousarray(_by_column(values, work.columns).transpose(2, 0, 1))
    return _by_row(values, work.columns if along == "row" else end - begin)


@compiled
def _fill(source: Elements, values: "NDArray[np.float32]") -> None:
    for k in range(values.size):
        values[k] = load(source, k)


@compiled
def _fill_delta(base: Elements, source: Elements, values: "NDArray[np.float32]") -> None:
    for k in range(values.size):
        values[k] = delta(source, k, load(base, k))


@compiled_in_any_order
def _by_row(values: "NDArray[np.float32]", columns: int) -> "NDArray[np.float64]":
    """Return the products of rows of `columns` elements, of shape (rows, models, models)."""
    models = values.shape[0]
    rows = values.shape[1] // columns
    found = np.empty((rows, models, models), np.float64)
    for row in range(rows):
        for i in range(models):
            left = values[i, row * columns : (row + 1) * columns]
            for j in range(i + 1):
                right = values[j, row * columns : (row + 1) * columns]
                whole = 0.0
                for k in range(columns):
                    whole += np.float64(left[k]) * np.float64(right[k])
                found[row, i, j] = whole
                found[row, j, i] = whole
    return found


@compiled
def _by_column(values: "NDArray[np.float32]", columns: int) -> "NDArray[np.float64]":
    """Return the products of columns, summed over the rows, of shape (models, models, columns)."""
    models = values.shape[0]
    found = np.zeros((models, models, columns), np.float64)
    for i in range(models):
        for j in range(i + 1):
            own = found[i, j]
            for row in range(values.shape[1] // columns):
                left = values[i, row * columns : (row + 1) * columns]
                right = values[j, row * columns : (row + 1) * columns]
                for k in range(columns):
                    own[k] += np.float64(left[k]) * np.float64(right[k])
            found[j, i] = own
    return found
