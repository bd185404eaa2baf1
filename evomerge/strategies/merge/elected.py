"""Methods that take each entry from the model in which it is largest: of all (MagMax), or of those that agree (EMR).

Nothing here depends on other entries, and neither on the order of the models.
"""

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

from evomerge.strategies.merge.parameters import SCALE, WEIGHT
from evomerge.strategies.merge.protocol import Needs, Parameter, Parameters, TensorContext
from evomerge.strategies.merge.registry import method
from evomerge.strategies.merge.ties import ballot, consensus
from evomerge.strategies.merge.vectors import required

if TYPE_CHECKING:
    from torch import Tensor


@method(
    "emr",
    title="EMR-Merging's unified model: elect a sign, take the largest entry of that sign",
    needs=Needs(base="required", inputs=(1, None)),
    parameters=(
        WEIGHT,
        SCALE,
        Parameter(
            "packs",
            "merge",
            False,
            "Whether a pack for each model is written beside the unified model: a mask and a factor that turn it into "
            "nearly that model (`evomerge unpack`).",
            choices=(True, False),
        ),
    ),
    source="Huang et al. 2024, EMR-Merging, arXiv:2405.17461",
    evidence="V",
)
def emr(ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters) -> "Tensor":
    """Return theta_0 + scale * tau_uni, its entries the largest of the tau_i that have the sign of sum tau_i.

    Weights are multiplied into the task vectors first. Where the sum is zero, the sign is plus (in the common code
    minus). This is the paper's unified model alone. The paper's results are those of what it turns into with a pack for
    each task: theta_0 + lambda_i m_i (theta - theta_0), m_i = [tau_i and theta - theta_0 have one sign], lambda_i =
    sum |tau_i| / sum |m_i (theta - theta_0)|. `packs` has these written beside an export; they change nothing in it.
    """
    origin = required(base)
    weights = params.numbers("weight")
    order = ballot(ctx, weights)
    deltas = [(inputs[index] - origin).mul_(weights[index]) for index in order]
    elected = consensus(deltas, [weights[index] for index in order], "max")
    return elected.mul_(params.number("scale")).add_(origin)


@method(
    "magmax",
    title="MagMax: take each entry from the model that changed it most",
    needs=Needs(base="required", inputs=(1, None)),
    parameters=(WEIGHT, SCALE),
    source="Marczak et al. 2024, MagMax, arXiv:2407.06322",
    evidence="A",
)
def magmax(
    ctx: TensorContext,  # noqa: ARG001  # the contract's arguments
    base: "Tensor | None",
    inputs: "Sequence[Tensor]",
    params: Parameters,
) -> "Tensor":
    """Return theta_0 + scale * tau, each entry of tau that of largest magnitude among the w_i tau_i.

    Of two that are opposite and equally large it is the positive one.
    """
    import torch

    origin = required(base)
    deltas = [(tensor - origin).mul_(weight) for tensor, weight in zip(inputs, params.numbers("weight"), strict=True)]
    highest, lowest = reduce(torch.maximum, deltas), reduce(torch.minimum, deltas)
    return torch.where(highest >= -lowest, highest, lowest).mul_(params.number("scale")).add_(origin)
