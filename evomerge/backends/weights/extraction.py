"""Adapters of a chosen rank made from merges and models, and how much of the change they hold.

The change to the base is computed whole, a tensor at a time, in float32; squares are added up in float64.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from evomerge.backends.weights.artifact import LowRank
from evomerge.backends.weights.compute import tensor_of
from evomerge.backends.weights.loss import Loss, Squares
from evomerge.backends.weights.models import module_of
from evomerge.backends.weights.plan import MergePlan

if TYPE_CHECKING:
    from torch import Tensor

_SMALL = 4
"""A matrix that is less than this many times as wide as the rank is decomposed whole."""
_ROUNDS = 4
"""How often the subspace of a larger one is refined."""


def lost(whole: MergePlan, tensors: Iterable[str], factors: Mapping[str, LowRank], rank: int) -> Loss:
    """Return what `factors` lack of the change that a merge makes to its base in `tensors`."""
    tally = _Tally()
    for name, change in _changes(whole, tensors):
        tally.add(name, change, factors.get(module_of(name)))
    return tally.loss(rank)


def extracted(
    whole: MergePlan, tensors: Iterable[str], carried: Callable[[str], bool], rank: int, running: Callable[[], None]
) -> tuple[dict[str, LowRank], Loss]:
    """Return an adapter of a merge's change to its base in the tensors that it is to carry, and what it lacks.

    Every module is of `rank`, or of the smaller of its dimensions. `running` is called before each tensor, and may
    raise.
    """
    tally = _Tally()
    factors: dict[str, LowRank] = {}
    for name, change in _changes(whole, tensors):
        running()
        low = leading(change, rank) if carried(name) else None
        if low is not None:
            factors[module_of(name)] = low
        tally.add(name, change, low)
    return factors, tally.loss(rank)


def leading(change: "Tensor", rank: int) -> LowRank:
    """Return factors of rank `rank` (or of the smaller dimension) whose product is nearly the best for a matrix.

    A matrix much larger than the rank is decomposed within a subspace that is found by block power iteration from a
    fixed start (Halko, Martinsson and Tropp 2011, arXiv:0909.4061, algorithm 4.4), half as wide again as the rank.
    """
    import torch

    least = min(change.shape)
    rank = min(rank, least)
    if least < _SMALL * rank:
        left, values, right = cast("tuple[Tensor, Tensor, Tensor]", torch.linalg.svd(change, full_matrices=False))
        return LowRank(a=right[:rank].contiguous(), b=left[:, :rank] * values[:rank])
    start = torch.Generator(change.device).manual_seed(0)
    width = min(least, rank + max(rank // 2, 8))
    block = torch.randn(change.shape[1], width, generator=start, device=change.device)
    for _ in range(_ROUNDS):
        block = _orthogonal(change.T @ _orthogonal(change @ block))
    left, values, right = cast("tuple[Tensor, Tensor, Tensor]", torch.linalg.svd(change @ block, full_matrices=False))
    return LowRank(a=right[:rank] @ block.T, b=left[:, :rank] * values[:rank])


@dataclass(slots=True)
class _Tally:
    """What of a change is missing, tensor by tensor."""

    modules: dict[str, float] = field(default_factory=dict[str, float])
    left_out: dict[str, float] = field(default_factory=dict[str, float])
    carried: Squares = field(default_factory=Squares)
    total: Squares = field(default_factory=Squares)

    def add(self, name: str, change: "Tensor", low: LowRank | None) -> None:
        """Count a tensor's change, which `low` is to hold; the change is overwritten."""
        squares = _squares(change)
        if low is None:
            self.total.add(squares, squares)
            if squares:
                self.left_out[name] = squares
            return
        missing = _squares(change.sub_(low.b @ low.a))
        self.carried.add(squares, missing)
        self.total.add(squares, missing)
        self.modules[module_of(name)] = Squares(squares, missing).error

    def loss(self, rank: int) -> Loss:
        shares = {name: Squares(self.total.changed, squares).error for name, squares in self.left_out.items()}
        return Loss(rank, self.modules, self.carried.error, shares, self.total.error)


def _changes(whole: MergePlan, tensors: Iterable[str]) -> "Iterator[tuple[str, Tensor]]":
    for name in tensors:
        if whole.base is not None:
            yield name, tensor_of(whole, name) - tensor_of(whole.base, name)


def _orthogonal(block: "Tensor") -> "Tensor":
    import torch

    return cast("tuple[Tensor, Tensor]", torch.linalg.qr(block))[0]


def _squares(tensor: "Tensor") -> float:
    import torch

    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2  # pyright: ignore[reportUnknownArgumentType]  # torch's stubs
