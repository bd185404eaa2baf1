"""Consensus merging by TALL masks: of the sum of task vectors, keep the entries that matter to enough of the models.

The masks of single models, by which a model could be recovered from the sum, are not an output: the result is one
model.
"""

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

from evomerge.strategies.merge.parameters import SCALE, WEIGHT
from evomerge.strategies.merge.protocol import Needs, Parameter, Parameters, TensorContext
from evomerge.strategies.merge.registry import method
from evomerge.strategies.merge.ties import ballot
from evomerge.strategies.merge.vectors import pieces, required

if TYPE_CHECKING:
    from torch import Tensor


@method(
    "consensus",
    title="Consensus merging: keep of the sum what matters to several models (TALL masks)",
    needs=Needs(base="required", inputs=(1, None)),
    parameters=(
        WEIGHT,
        Parameter(
            "threshold",
            "input",
            0.4,
            "An entry matters to this model where it is more than this many times as large as what the others add to "
            "it.",
            low=0.2,
            high=1.0,
            minimum=0.0,
        ),
        Parameter(
            "least_models",
            "merge",
            2,
            "To how many models an entry must matter to be kept: 0 keeps everything, 1 drops what matters to none, 2 "
            "also what matters to one alone.",
            choices=(0, 1, 2),
        ),
        SCALE,
    ),
    source="Wang et al. 2024, Localizing Task Information for Improved Model Merging and Compression, arXiv:2405.07813",
    evidence="V",
)
def consensus(ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters) -> "Tensor":
    """Return theta_0 + scale * sum tau_j where |tau_i| > threshold_i |sum tau_j - tau_i| for enough models i.

    Elsewhere it is theta_0. Enough is `least_models` (the paper's k). Weights are multiplied into the task vectors
    first. One model alone never reaches 2.
    """
    origin = required(base)
    weights, thresholds = params.numbers("weight"), params.numbers("threshold")
    order = ballot(ctx, weights)
    flat = [(inputs[index] - origin).mul_(weights[index]).flatten() for index in order]
    result = flat[0]
    for span in pieces(result):
        parts = [delta[span] for delta in flat]
        result[span] = _shared(parts, [thresholds[index] for index in order], int(params.number("least_models")))
    return result.view(origin.shape).mul_(params.number("scale")).add_(origin)


def _shared(deltas: "list[Tensor]", thresholds: Sequence[float], least: int) -> "Tensor":
    import torch

    together = reduce(torch.add, deltas)
    votes = torch.zeros_like(together, dtype=torch.int32)
    for delta, threshold in zip(deltas, thresholds, strict=True):
        votes.add_(delta.abs() > (together - delta).abs_().mul_(threshold))
    return together.mul_(votes >= least)
