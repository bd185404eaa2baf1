"""DARE: drop entries of the task vectors at random and rescale the rest, then add them up or let them vote as in TIES.

Which entries are dropped depends on the recipe's seed, the tensor's name, the expert and the entry's index alone (see
`masks`), so one recipe is one model, and raising a density only adds entries.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from evomerge.strategies.merge.averages import summed
from evomerge.strategies.merge.masks import drop_, expert_key
from evomerge.strategies.merge.parameters import MERGE_FUNC, RESCALE, SCALE, SIGNED_WEIGHT, normalize
from evomerge.strategies.merge.protocol import Needs, Parameter, Parameters, TensorContext
from evomerge.strategies.merge.registry import method
from evomerge.strategies.merge.ties import voted
from evomerge.strategies.merge.vectors import mass, required, with_mass_

if TYPE_CHECKING:
    from torch import Tensor

_NEEDS = Needs(base="required", inputs=(1, None), scope="tensor")
_SOURCE = "Yu et al. 2024, Language models are Super Mario, arXiv:2311.03099"
_DENSITY = Parameter(
    "density",
    "input",
    0.7,
    "Chance of each of this model's differences to the base to be kept (1 minus DARE's drop rate).",
    low=0.05,
    high=1.0,
    minimum=0.001,
    maximum=1.0,
)


def _dropped(
    ctx: TensorContext, origin: "Tensor", inputs: "Sequence[Tensor]", params: Parameters, index: int
) -> "Tensor":
    """Return an expert's task vector after entries were dropped at random and the rest rescaled.

    With `rescale` l1, a tensor of which nothing but zeros was kept stays zero.
    """
    delta = inputs[index] - origin
    density = float(params.inputs[index]["density"])
    if density == 1:
        return delta
    l1 = params.choice("rescale") == "l1"
    before = mass(delta) if l1 else 0.0
    kept = drop_(delta.flatten(), expert_key(ctx.seed, ctx.name, ctx.fingerprints[index]), density).view(delta.shape)
    if not l1:
        return kept.mul_(1 / density)
    return with_mass_(kept, before)


@method(
    "dare_linear",
    title="DARE: drop at random and rescale, then sum",
    needs=_NEEDS,
    parameters=(SIGNED_WEIGHT, _DENSITY, SCALE, RESCALE, normalize(default=False)),
    source=_SOURCE,
    evidence="V",
)
def dare_linear(ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters) -> "Tensor":
    """Return theta_0 + scale * sum w_i drop(theta_i - theta_0). There is no published default density; ours is 0.7."""
    origin = required(base)
    return summed(origin, lambda index: _dropped(ctx, origin, inputs, params, index), params)


@method(
    "dare_ties",
    title="DARE with TIES: drop at random and rescale, elect sign, merge what agrees",
    needs=_NEEDS,
    parameters=(SIGNED_WEIGHT, _DENSITY, SCALE, RESCALE, replace(MERGE_FUNC, default="sum")),
    source=_SOURCE,
    evidence="V",
)
def dare_ties(ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters) -> "Tensor":
    """Return theta_0 + scale * consensus of the dropped task vectors, weights multiplied in before the vote.

    What agrees is summed by default: the rescaling already makes up for what was dropped.
    """
    origin = required(base)
    return voted(ctx, origin, lambda index: _dropped(ctx, origin, inputs, params, index), params)
