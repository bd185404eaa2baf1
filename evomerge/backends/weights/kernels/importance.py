"""Arcee Fusion: which entries matter does not depend on parameters, so what decides on it is found once a study."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evomerge.backends.weights.kernels.jit import compiled
from evomerge.backends.weights.kernels.numbers import load, store
from evomerge.backends.weights.kernels.work import UNIT, Sources, Work
from evomerge.strategies.merge.swaps import divergences, importance, threshold
from evomerge.strategies.merge.vectors import required

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evomerge.backends.weights.kernels.numbers import Elements


@dataclass(frozen=True)
class _Importance:
    """The divergence of every row (last dimension), float64, and the importance from which on entries are taken."""

    divergences: "NDArray[np.float64]"
    threshold: np.float64


def arcee_fusion(work: Work) -> int:
    """Arcee Fusion."""
    found = work.sources.keep("importance", (0,), lambda: _found(work.sources), lambda kept: kept.divergences.nbytes)
    columns = work.out.size // found.divergences.size

    def rows(begin: int, end: int) -> int:
        own = found.divergences[begin // columns : end // columns]
        base, model = work.origin[begin:end], work.inputs[0][begin:end]
        return _pass(base, model, own, columns, found.threshold, work.out[begin:end], work.largest)

    return work.over(rows, step=max(UNIT // columns, 1) * columns)


def _found(sources: Sources) -> _Importance:
    base, (model,) = sources.tensors()
    origin = required(base)
    found = divergences(origin, model)
    return _Importance(found.numpy(), np.float64(threshold(importance(origin, model, found))))


@compiled
def _pass(
    base: "Elements",
    model: "Elements",
    divergences: "NDArray[np.float64]",
    columns: int,
    least: np.float64,
    out: "Elements",
    largest: np.float32,
) -> int:
    """Write the model's entries of at least that importance; return how many are larger than `largest` or no number."""
    bad = 0
    for row in range(divergences.size):
        divergence = divergences[row]
        for k in range(row * columns, (row + 1) * columns):
            old, new = load(base, k), load(model, k)
            moved = np.float32(abs(np.float64(new) - np.float64(old)) * divergence)
            value = new if moved >= least else old
            bad += 0 if abs(value) <= largest else 1
            store(out, k, value)
    return bad
