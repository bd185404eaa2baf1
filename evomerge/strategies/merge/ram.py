"""RAM: what one model alone has changed is taken whole, what several have changed is averaged over these.

RAM+ also raises what is a model's own, the more the larger its shared part is beside it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evomerge.strategies.merge.parameters import SCALE
from evomerge.strategies.merge.protocol import Needs, Parameter, Parameters, TensorContext
from evomerge.strategies.merge.registry import method
from evomerge.strategies.merge.vectors import required

if TYPE_CHECKING:
    from torch import Tensor

_SOURCE = "Behavior Knowledge Merge in Reinforced Agentic Models (2026), arXiv:2601.13572"
_EPSILON = Parameter(
    "epsilon",
    "merge",
    1e-5,
    "A model has changed an entry where it differs from the base by more than this; smaller differences are dropped.",
    low=1e-7,
    high=1e-3,
    log=True,
    minimum=0.0,
)


def _joined(deltas: "list[Tensor]", changes: "Tensor", gains: Sequence[float]) -> "Tensor":
    """Return the means over the models that changed an entry, where one alone did so times its gain."""
    import torch

    alone = changes == 1
    result = torch.zeros_like(deltas[0])
    for delta, gain in zip(deltas, gains, strict=True):
        result.add_(delta if gain == 1 else torch.where(alone, delta * gain, delta))
    return result.div_(changes.clamp(min=1))


def _changed(origin: "Tensor", inputs: "Sequence[Tensor]", epsilon: float) -> "tuple[list[Tensor], Tensor]":
    """Return the task vectors without small entries, and how many models have changed each entry."""
    import torch

    changes = torch.zeros_like(origin, dtype=torch.int32)
    deltas: list[Tensor] = []
    for tensor in inputs:
        delta = tensor - origin
        large = delta.abs() > epsilon
        changes.add_(large)
        deltas.append(delta.mul_(large))
    return deltas, changes


@method(
    "ram",
    title="RAM: keep what one model alone changed, average what several changed",
    needs=Needs(base="required", inputs=(1, None)),
    parameters=(_EPSILON, SCALE),
    source=_SOURCE,
    evidence="V",
)
def ram(
    ctx: TensorContext,  # noqa: ARG001  # the contract's arguments
    base: "Tensor | None",
    inputs: "Sequence[Tensor]",
    params: Parameters,
) -> "Tensor":
    """Return theta_0 + scale * tau, each entry of tau the mean of the tau_i that are larger than epsilon there.

    Made for models trained by reinforcement, whose task vectors are sparse and seldom meet. Because of epsilon it is
    not homogeneous.
    """
    origin = required(base)
    deltas, changes = _changed(origin, inputs, params.number("epsilon"))
    return _joined(deltas, changes, [1.0] * len(deltas)).mul_(params.number("scale")).add_(origin)


@method(
    "ram_plus",
    title="RAM+: like RAM, and raise what one model alone changed",
    needs=Needs(base="required", inputs=(1, None), scope="tensor"),
    parameters=(
        _EPSILON,
        Parameter(
            "gain",
            "merge",
            0.1,
            "By how much a model's own entries grow for each entry that it shares beside one of its own (the paper's "
            "r).",
            low=0.0,
            high=0.5,
            minimum=0.0,
        ),
        Parameter(
            "limit",
            "merge",
            0.2,
            "Up to how many shared entries beside each own one count (the paper's alpha).",
            low=0.0,
            high=1.0,
            minimum=0.0,
        ),
        SCALE,
    ),
    source=_SOURCE,
    evidence="V",
)
def ram_plus(
    ctx: TensorContext,  # noqa: ARG001  # the contract's arguments
    base: "Tensor | None",
    inputs: "Sequence[Tensor]",
    params: Parameters,
) -> "Tensor":
    """Return `ram` with a model's own entries times 1 + gain * min(shared / own, limit).

    `shared` and `own` are the numbers of entries of this tensor that the model changed together with others and alone.
    The common code counts by tensor too and names it tensor-local.
    """
    origin = required(base)
    deltas, changes = _changed(origin, inputs, params.number("epsilon"))
    gain, limit = params.number("gain"), params.number("limit")
    gains: list[float] = []
    for delta in deltas:
        own = int(((changes == 1) & (delta != 0)).sum())
        shared = int(((changes > 1) & (delta != 0)).sum())
        gains.append(1 + gain * min(shared / own, limit) if own else 1.0)
    return _joined(deltas, changes, gains).mul_(params.number("scale")).add_(origin)
