"""Keeping the largest entries of a task vector, in exactly the number that was asked for."""

from typing import TYPE_CHECKING

from evomerge.strategies.merge.magnitudes import Magnitudes, select_

if TYPE_CHECKING:
    from torch import Tensor


def kept_count(size: int, density: float) -> int:
    """Return how many of `size` entries a density keeps: int(size * density), and at least one for a density above
    zero.
    """
    return max(int(size * density), 1 if density > 0 else 0) if size else 0


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
