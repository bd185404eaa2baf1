"""Keeping the largest entries of a task vector, in exactly the number that was asked for."""

from typing import TYPE_CHECKING

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

    Of entries whose magnitude is exactly the threshold's, those of lowest flat (row-major) index are kept, so that
    the number is exact whatever is equal. Entries that are zero need no keeping.
    """
    import torch

    kept = kept_count(delta.numel(), density)
    if kept == delta.numel():
        return delta
    if kept == 0:
        return delta.zero_()
    flat = delta.flatten()
    magnitude = flat.abs()
    threshold, equal = _threshold(magnitude, kept)
    if threshold > 0:
        tied = (magnitude == threshold).nonzero().flatten()[:equal]
        values = flat[tied]
        torch.hardshrink(flat, threshold, out=flat)  # keeps what is above the threshold
        flat[tied] = values
    return flat.view(delta.shape)


def _threshold(magnitude: "Tensor", kept: int) -> tuple[float, int]:
    """Return the smallest of the `kept` largest values, and how many of them are equal to it.

    numpy's selection is several times as fast as torch's where it can be used.
    """
    rank = magnitude.numel() - kept
    if magnitude.device.type != "cpu":
        smallest = float(magnitude.kthvalue(rank + 1).values)
        return smallest, kept - int((magnitude > smallest).count_nonzero())
    import numpy as np

    largest = np.partition(magnitude.numpy(), rank)[rank:]
    return float(largest[0]), int(np.count_nonzero(largest == largest[0]))
