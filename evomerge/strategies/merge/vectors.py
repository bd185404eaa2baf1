"""What formulas have in common: a base that must be there, and sums over all elements of a tensor.

Sums are taken in float64 over pieces of fixed size: they need little memory whatever the tensor's size, and what
hangs on them does not change with the number of threads beyond the last bits of a float64.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_PIECE = 1 << 20


def required(base: "Tensor | None") -> "Tensor":
    """Return the base. Raises ValueError where there is none: the recipe's check comes before any method is applied."""
    if base is None:
        raise ValueError("this method needs a base")
    return base


def total(term: "Callable[..., Tensor]", *tensors: "Tensor") -> float:
    """Return the sum over all elements of `term(*tensors)`, a function that works element by element, in float64."""
    import torch

    flat = [tensor.flatten() for tensor in tensors]
    result = torch.zeros((), dtype=torch.float64, device=flat[0].device)
    for start in range(0, flat[0].numel(), _PIECE):
        result += term(*(tensor[start : start + _PIECE].double() for tensor in flat)).sum()
    return float(result)
