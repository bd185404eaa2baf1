"""What formulas have in common: a base that must be there, work in pieces, and sums over all elements of a tensor.

Sums are taken in float64, so what hangs on them does not change with the number of threads beyond a float64's last
bits.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_PIECE = 1 << 17  # elements of which a few tensors stay in a core's cache


def required(base: "Tensor | None") -> "Tensor":
    """Return the base. Raises ValueError where there is none: the recipe's check comes before any method is applied."""
    if base is None:
        raise ValueError("this method needs a base")
    return base


def pieces(flat: "Tensor") -> "Iterator[slice]":
    """Yield slices that cover a tensor of one dimension.

    On a CPU they are small, so that what is computed on the way stays in its cache; elsewhere there is one.
    """
    size = flat.numel()
    step = _PIECE if flat.device.type == "cpu" else max(size, 1)
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def total(term: "Callable[..., Tensor]", *tensors: "Tensor") -> float:
    """Return the sum over all elements of `term(*tensors)`, a function that works element by element, in float64."""
    import torch

    flat = [tensor.flatten() for tensor in tensors]
    result = torch.zeros((), dtype=torch.float64, device=flat[0].device)
    for span in pieces(flat[0]):
        result += term(*(tensor[span].double() for tensor in flat)).sum()
    return float(result)


def mass(tensor: "Tensor") -> float:
    """Return the sum of all magnitudes of a tensor, its L1 norm."""
    return total(_magnitude, tensor)


def with_mass_(tensor: "Tensor", wanted: float) -> "Tensor":
    """Multiply a tensor, in place, so that its `mass` is the one wanted; one that has none stays as it is."""
    there = mass(tensor)
    return tensor.mul_(wanted / there) if there > 0 else tensor


def _magnitude(tensor: "Tensor") -> "Tensor":
    return tensor.abs()


def as_rows(tensor: "Tensor") -> "Tensor":
    """Return a tensor as a matrix: its first dimension by all others together; with less than two it is one row."""
    return tensor.reshape(1, -1) if tensor.dim() < 2 else tensor.flatten(1)


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Yield slices of a matrix's rows, on which some tensors stay in a CPU's cache."""
    step = max(_PIECE // max(columns, 1), 1)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
