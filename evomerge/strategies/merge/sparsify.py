"""Keeping the largest entries of a task vector, in exactly the number that was asked for."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def kept_count(size: int, density: float) -> int:
    """Return how many of `size` entries a density keeps: int(size * density), and at least one for a density above
    zero.
    """
    return max(int(size * density), 1 if density > 0 else 0) if size else 0


def trim_(delta: "Tensor", density: float) -> "Tensor":
    """Set all but the `kept_count` entries of largest magnitude to zero, in place, and return the tensor.

    Of entries whose magnitude is exactly the threshold's, those of lowest flat (row-major) index are kept, so that the
    number is exact whatever is equal. Entries that are zero need no keeping.
    """
    kept = kept_count(delta.numel(), density)
    if kept == delta.numel():
        return delta
    if kept == 0:
        return delta.zero_()
    magnitude = delta.abs().flatten()
    threshold = _kth_largest(magnitude, kept)
    keep = magnitude > threshold
    if threshold > 0:
        missing = kept - int(keep.count_nonzero())
        keep[(magnitude == threshold).nonzero().flatten()[:missing]] = True
    return delta.mul_(keep.view(delta.shape))


def _kth_largest(magnitude: "Tensor", k: int) -> float:
    """Return the k-th largest value. numpy's selection is several times as fast as torch's where it can be used."""
    rank = magnitude.numel() - k
    if magnitude.device.type != "cpu":
        return float(magnitude.kthvalue(rank + 1).values)
    import numpy as np

    return float(np.partition(magnitude.numpy(), rank)[rank])
