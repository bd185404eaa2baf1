"""Keeping the largest entries of a task vector, of one tensor or of the whole model, in exactly the number that was
asked for.
"""

from typing import TYPE_CHECKING, cast

from evomerge.strategies.merge.magnitudes import Magnitudes, select_
from evomerge.strategies.merge.protocol import Whole

if TYPE_CHECKING:
    from torch import Tensor

    from evomerge.strategies.merge.whole import OfInputs


def kept_count(size: int, density: float) -> int:
    """Return how many of `size` entries a density keeps: int(size * density), and at least one for a density above
    zero.
    """
    return max(int(size * density), 1 if density > 0 else 0) if size else 0


def kept_range(size: int, density: float, gamma: float) -> tuple[int, int]:
    """Return from which place on, and up to which, `size` entries in the order of falling magnitude are kept when
    int(size * gamma) of the largest go and `kept_count` remain; fewer of the largest where there is less to remove.
    """
    kept = kept_count(size, density)
    first = min(int(size * gamma), size - kept)
    return first, first + kept


def trim(delta: "Tensor", density: float) -> "Tensor":
    """Return the delta with all but the `kept_count` entries of largest magnitude set to zero; `delta` may be
    overwritten.

    Magnitudes are compared as bfloat16 numbers; of equal ones those of lowest flat (row-major) index are kept, so that
    the number is exact whatever is equal. Entries that are zero need no keeping.
    """
    kept = kept_count(delta.numel(), density)
    if kept == delta.numel():
        return delta
    if kept == 0:
        return delta.zero_()
    return select_(delta, Magnitudes.of(delta).band(0, kept))


def trim_tails(delta: "Tensor", density: float, gamma: float) -> "Tensor":
    """Return the delta without its int(n * gamma) largest entries and without its smallest ones, so that `kept_count`
    remain; `delta` may be overwritten.

    Where the density leaves less to remove than gamma asks for, that much of the largest goes. Entries are ordered as
    in `trim`.
    """
    first, last = kept_range(delta.numel(), density, gamma)
    if (first, last) == (0, delta.numel()):
        return delta
    return select_(delta, Magnitudes.of(delta).band(first, last))


def trim_model(delta: "Tensor", density: float, whole: Whole, index: int) -> "Tensor":
    """Return one tensor's part of an input's trimmed whole task vector; `delta` is overwritten.

    `whole` has the `Magnitudes` of every input (`whole.delta_magnitudes`), and `index` says which input this is. The
    `kept_count` entries of largest magnitude of all tensors are kept, of equal ones those of the tensors that come
    first.
    """
    total = cast("OfInputs[Magnitudes]", whole.total).each[index]
    before = None if whole.before is None else cast("OfInputs[Magnitudes]", whole.before).each[index]
    return select_(delta, total.band(0, kept_count(total.size, density)), before)
