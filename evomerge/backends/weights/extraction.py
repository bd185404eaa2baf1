"""How much of a merge an adapter of a chosen rank holds: the merge computed whole, compared with the factors."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from evomerge.backends.weights.artifact import LowRank
from evomerge.backends.weights.compute import tensor_of
from evomerge.backends.weights.loss import Loss, Squares
from evomerge.backends.weights.models import module_of
from evomerge.backends.weights.plan import MergePlan

if TYPE_CHECKING:
    from torch import Tensor


def lost(whole: MergePlan, tensors: Iterable[str], factors: Mapping[str, LowRank], rank: int) -> Loss:
    """Return what `factors` lack of the change that a merge makes to its base in `tensors`.

    Computed in float32, a tensor at a time; squares are added up in float64.
    """
    modules: dict[str, float] = {}
    left_out: dict[str, float] = {}
    carried, total = Squares(), Squares()
    for name in tensors:
        if whole.base is None:
            continue
        change = tensor_of(whole, name) - tensor_of(whole.base, name)
        squares = _squares(change)
        low = factors.get(module_of(name))
        if low is None:
            total.add(squares, squares)
            if squares:
                left_out[name] = squares
            continue
        missing = _squares(change.sub_(low.b @ low.a))
        carried.add(squares, missing)
        total.add(squares, missing)
        modules[module_of(name)] = Squares(squares, missing).error
    shares = {name: Squares(total.changed, squares).error for name, squares in left_out.items()}
    return Loss(rank, modules, carried.error, shares, total.error)


def _squares(tensor: "Tensor") -> float:
    import torch

    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2  # pyright: ignore[reportUnknownArgumentType]  # torch's stubs
