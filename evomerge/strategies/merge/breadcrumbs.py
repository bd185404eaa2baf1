"""Model Breadcrumbs: task vectors lose both tails of their magnitudes, outliers and noise, then are summed or vote.

How many entries go at either end is counted explicitly, so gamma 0 removes no outliers and nothing else changes.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from evomerge.strategies.merge.averages import summed
from evomerge.strategies.merge.parameters import MERGE_FUNC, SCALE, SIGNED_WEIGHT, normalize
from evomerge.strategies.merge.protocol import Needs, Parameter, Parameters, TensorContext
from evomerge.strategies.merge.registry import method
from evomerge.strategies.merge.sparsify import trim_tails
from evomerge.strategies.merge.ties import voted
from evomerge.strategies.merge.vectors import required

if TYPE_CHECKING:
    from torch import Tensor

_NEEDS = Needs(base="required", inputs=(1, None), scope="tensor")
_SOURCE = "Davari and Belilovsky 2024, Model Breadcrumbs, arXiv:2312.06795"
_DENSITY = Parameter(
    "density",
    "input",
    0.9,
    "Share of each tensor's differences to the base that is kept; the others are its largest (see gamma) and smallest.",
    low=0.05,
    high=1.0,
    minimum=0.0,
    maximum=1.0,
)
_GAMMA = Parameter(
    "gamma",
    "input",
    0.01,
    "Share of each tensor's differences, the largest, that is removed as outliers.",
    low=0.0,
    high=0.05,
    minimum=0.0,
    maximum=1.0,
)


def _crumbs(origin: "Tensor", inputs: "Sequence[Tensor]", params: Parameters, index: int) -> "Tensor":
    own = params.inputs[index]
    return trim_tails(inputs[index] - origin, float(own["density"]), float(own["gamma"]))


@method(
    "breadcrumbs",
    title="Model Breadcrumbs: drop the largest and smallest differences, then sum",
    needs=_NEEDS,
    parameters=(SIGNED_WEIGHT, _DENSITY, _GAMMA, SCALE, normalize(default=False)),
    source=_SOURCE,
    evidence="V",
)
def breadcrumbs(
    ctx: TensorContext,  # noqa: ARG001  # the contract's arguments
    base: "Tensor | None",
    inputs: "Sequence[Tensor]",
    params: Parameters,
) -> "Tensor":
    """Return theta_0 + scale * sum w_i m_i (theta_i - theta_0), with m_i the mask of what is neither large nor small.

    Of each tensor of n entries int(n * density) are kept, at least one: those that follow the int(n * gamma) largest.
    Where that is more than there is, fewer of the largest are removed. Nothing is rescaled. The authors' code masks
    along the last axis; ours, like the common one, over the whole tensor.
    """
    origin = required(base)
    return summed(origin, lambda index: _crumbs(origin, inputs, params, index), params)


@method(
    "breadcrumbs_ties",
    title="Model Breadcrumbs with TIES: drop the largest and smallest differences, elect sign, merge what agrees",
    needs=_NEEDS,
    parameters=(SIGNED_WEIGHT, _DENSITY, _GAMMA, SCALE, replace(MERGE_FUNC, default="sum")),
    source=_SOURCE,
    evidence="V",
)
def breadcrumbs_ties(
    ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters
) -> "Tensor":
    """Return theta_0 + scale * consensus of the task vectors without their tails.

    The mask is that of `breadcrumbs`; weights are multiplied in before the vote, and what agrees is summed by default.
    """
    origin = required(base)
    return voted(ctx, origin, lambda index: _crumbs(origin, inputs, params, index), params)
