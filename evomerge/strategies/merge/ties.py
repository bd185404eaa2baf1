"""TIES: trim each task vector to its largest entries, elect a sign for each coordinate, merge those that agree with it.

Two rules of the paper's code are replaced by exact ones: the trim keeps exactly the number asked for, of each tensor or
of the whole model, and a vote that ends at zero elects plus. The vote is there for other methods that sparsify.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING

from evomerge.strategies.merge.parameters import MERGE_FUNC, SCALE, WEIGHT
from evomerge.strategies.merge.protocol import Needs, Parameter, Parameters, Stage, TensorContext
from evomerge.strategies.merge.registry import method
from evomerge.strategies.merge.sparsify import trim, trim_model
from evomerge.strategies.merge.vectors import pieces, required
from evomerge.strategies.merge.whole import delta_magnitudes

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


def voted(ctx: TensorContext, origin: "Tensor", delta_of: "Callable[[int], Tensor]", params: Parameters) -> "Tensor":
    """Return theta_0 + scale * consensus of the inputs' deltas, weights multiplied in before the vote.

    `delta_of` gives the delta of an input by its index, a tensor of its own, which is overwritten.
    """
    weights = params.numbers("weight")
    order = ballot(ctx, weights)
    deltas = [delta_of(index).mul_(weights[index]) for index in order]
    merged = consensus(deltas, [weights[index] for index in order], params.choice("merge_func"))
    return merged.mul_(params.number("scale")).add_(origin)


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


def _stages(params: Parameters) -> tuple[Stage, ...]:
    return (delta_magnitudes,) if params.choice("scope") == "model" else ()


@method(
    "ties",
    title="TIES: trim, elect sign, merge what agrees",
    needs=Needs(base="required", inputs=(1, None), scope="model"),
    parameters=(
        WEIGHT,
        Parameter(
            "density",
            "input",
            0.2,
            "Share of this model's differences to the base that is kept, the largest of each tensor or of the model.",
            low=0.05,
            high=1.0,
            minimum=0.0,
            maximum=1.0,
        ),
        SCALE,
        MERGE_FUNC,
        Parameter(
            "scope",
            "merge",
            "tensor",
            "Of what the largest differences are kept: of each tensor, or of all tensors of the model together.",
            choices=("tensor", "model"),
        ),
    ),
    source="Yadav et al. 2023, TIES-Merging, arXiv:2306.01708",
    evidence="V",
    stages=_stages,
)
def ties(ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters) -> "Tensor":
    """Return theta_0 + scale * consensus of the trimmed task vectors, weights multiplied in before the vote.

    Defaults are the paper's (density 0.2, scale 1, mean, no weights), but that its code trims the whole model at once,
    which is `scope` model. Of each tensor, or of the model, exactly int(n * density) entries are kept, at least one, of
    equal ones those of lowest index (in the model: of the first tensor in natural order).
    """
    origin = required(base)
    densities = params.numbers("density")
    whole = ctx.whole[0] if params.choice("scope") == "model" else None

    def delta_of(index: int) -> "Tensor":
        delta = inputs[index] - origin
        return trim(delta, densities[index]) if whole is None else trim_model(delta, densities[index], whole, index)

    return voted(ctx, origin, delta_of, params)
