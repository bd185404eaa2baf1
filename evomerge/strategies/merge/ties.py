"""TIES: trim each task vector to its largest entries, elect a sign for each coordinate, merge those that agree with it.

Two rules of the paper's code are replaced by the exact ones: the trim is per tensor and keeps exactly the number asked
for, and a vote that ends at zero elects plus.
"""

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

from evomerge.strategies.merge.parameters import MERGE_FUNC, SCALE, WEIGHT
from evomerge.strategies.merge.protocol import Needs, Parameter, Parameters, TensorContext
from evomerge.strategies.merge.registry import method
from evomerge.strategies.merge.sparsify import trim
from evomerge.strategies.merge.vectors import pieces, required

if TYPE_CHECKING:
    from torch import Tensor


def ballot(ctx: TensorContext, weights: Sequence[float]) -> list[int]:
    """Return the order in which inputs are counted: by fingerprint, whatever their order in the recipe.

    A sum of rounded numbers depends on their order, and where a vote is a tie but for rounding, so does the sign.
    """
    return sorted(range(len(weights)), key=lambda index: (ctx.fingerprints[index], weights[index]))


def consensus(deltas: "list[Tensor]", weights: Sequence[float], merge_func: str) -> "Tensor":
    """Return the merge of those entries that agree with the elected sign. The deltas are weighted, and overwritten.

    The sign of a coordinate is that of the sum of the deltas, plus where it is zero. Among the entries of that sign,
    "mean" is their sum over the sum of their weights' magnitudes, "sum" their sum, "max" the one of largest magnitude;
    zeros have no sign. A coordinate without such entries is zero.
    """
    flat = [delta.flatten() for delta in deltas]
    result = flat[0]
    for span in pieces(result):
        result[span] = _agreed([delta[span] for delta in flat], weights, merge_func)
    return result.view(deltas[0].shape)


def _agreed(deltas: "list[Tensor]", weights: Sequence[float], merge_func: str) -> "Tensor":
    import torch

    sign = reduce(torch.add, deltas).ge(0).to(deltas[0].dtype).mul_(2).sub_(1)
    agreeing = [delta.mul_(sign).clamp_(min=0) for delta in deltas]
    if merge_func == "max":
        return reduce(torch.maximum, agreeing) * sign
    merged = reduce(torch.add, agreeing) * sign
    if merge_func == "mean":
        mass = torch.zeros_like(merged)
        for part, weight in zip(agreeing, weights, strict=True):
            mass.add_(part > 0, alpha=abs(weight))
        merged.div_(mass.clamp_(min=torch.finfo(mass.dtype).tiny))
    return merged


@method(
    "ties",
    title="TIES: trim, elect sign, merge what agrees",
    needs=Needs(base="required", inputs=(1, None), scope="tensor"),
    parameters=(
        WEIGHT,
        Parameter(
            "density",
            "input",
            0.2,
            "Share of this model's differences to the base that is kept, the largest of each tensor.",
            low=0.05,
            high=1.0,
            minimum=0.0,
            maximum=1.0,
        ),
        SCALE,
        MERGE_FUNC,
    ),
    source="Yadav et al. 2023, TIES-Merging, arXiv:2306.01708",
    evidence="V",
)
def ties(ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters) -> "Tensor":
    """Return theta_0 + scale * consensus of the trimmed task vectors, weights multiplied in before the vote.

    Defaults are the paper's (density 0.2, scale 1, mean, no weights). Of each tensor exactly int(n * density) entries
    are kept, at least one, of equal ones those of lowest index.
    """
    origin = required(base)
    weights, densities = params.numbers("weight"), params.numbers("density")
    order = ballot(ctx, weights)
    deltas = [trim(inputs[index] - origin, densities[index]).mul_(weights[index]) for index in order]
    merged = consensus(deltas, [weights[index] for index in order], params.choice("merge_func"))
    return merged.mul_(params.number("scale")).add_(origin)
