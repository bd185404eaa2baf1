"""SCE: select the entries in which the task vectors differ most, calculate weights from what is left, erase minorities.

Where all models agree everywhere there is nothing to select by, and their mean is the result, not the base.
"""

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

from evomerge.strategies.merge.magnitudes import Magnitudes, select_
from evomerge.strategies.merge.parameters import SCALE
from evomerge.strategies.merge.protocol import Needs, Parameter, Parameters, TensorContext
from evomerge.strategies.merge.registry import method
from evomerge.strategies.merge.sparsify import kept_count
from evomerge.strategies.merge.ties import ballot
from evomerge.strategies.merge.vectors import pieces, required, total

if TYPE_CHECKING:
    from torch import Tensor

LEAST_MASS = 1e-6
"""What a sum of weights counts at least."""


@method(
    "sce",
    title="SCE: select by variance, weigh by energy, erase what disagrees in sign",
    needs=Needs(base="required", inputs=(1, None), scope="tensor"),
    parameters=(
        Parameter(
            "select_topk",
            "merge",
            1.0,
            "Share of the entries in which models differ that is kept, those of largest variance; 1 keeps everything.",
            low=0.05,
            high=1.0,
            minimum=0.0,
            maximum=1.0,
        ),
        SCALE,
    ),
    source="Wan et al. 2024, FuseChat, arXiv:2408.07990",
    evidence="V",
)
def sce(ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters) -> "Tensor":
    """Return theta_0 + scale * sum w_i e_i tau_i / sum w_i e_i, element by element.

    First all but int(m * select_topk) entries of the task vectors are set to zero, of the m of a tensor in which they
    differ; at least one is kept. These have the largest (population) variance over the models, compared as bfloat16,
    of equal ones those of lowest index. Then w_i = sum tau_i^2 / sum_j sum tau_j^2 over the tensor, and e_i is 1 where
    tau_i has the sign of sum tau_i (plus where that is zero), else 0. A sum of weights below 1e-6 counts as that.
    Where the models differ in no entry, the result is theta_0 + scale * tau (the common code returns theta_0).
    """
    origin = required(base)
    deltas = [inputs[index] - origin for index in ballot(ctx, (1.0,) * len(inputs))]
    scale = params.number("scale")
    chosen = _select(deltas, params.number("select_topk"))
    if chosen is None:
        return deltas[0].mul_(scale).add_(origin)
    energies = [total(_square, delta.mul_(chosen)) for delta in deltas]
    whole = sum(energies)
    weights = [energy / whole if whole > 0 else 0.0 for energy in energies]
    return _fused(deltas, weights).mul_(scale).add_(origin)


def _select(deltas: "list[Tensor]", share: float) -> "Tensor | None":
    """Return a mask of the entries to keep, or None where all deltas are equal.

    The variance is that of the differences to the first delta, so that it is exactly zero where they are equal.
    """
    import torch

    shifted = [delta - deltas[0] for delta in deltas[1:]]
    if not any(bool(part.any()) for part in shifted):
        return None
    if share == 1:
        return torch.ones((), dtype=torch.bool, device=deltas[0].device)
    mean = reduce(torch.add, shifted) / len(deltas)
    variance = reduce(torch.add, [(part - mean).square_() for part in shifted], mean.square()).div_(len(deltas))
    counted = Magnitudes.of(variance)
    differing = counted.size - int(counted.counts[0])
    if not differing:  # differences so small that their squares are zero
        return torch.ones_like(variance, dtype=torch.bool)
    return select_(variance, counted.band(0, kept_count(differing, share))) != 0


def _square(tensor: "Tensor") -> "Tensor":
    return tensor * tensor


def _fused(deltas: "list[Tensor]", weights: Sequence[float]) -> "Tensor":
    """Return the weighted mean of the entries that have the sign of their sum. The deltas are overwritten."""
    flat = [delta.flatten() for delta in deltas]
    result = flat[0]
    for span in pieces(result):
        result[span] = _agreed([delta[span] for delta in flat], weights)
    return result.view(deltas[0].shape)


def _agreed(deltas: "list[Tensor]", weights: Sequence[float]) -> "Tensor":
    import torch

    sign = reduce(torch.add, deltas).ge(0).to(deltas[0].dtype).mul_(2).sub_(1)
    merged, mass = torch.zeros_like(sign), torch.zeros_like(sign)
    for delta, weight in zip(deltas, weights, strict=True):
        agreeing = delta.mul_(sign).clamp_(min=0)
        merged.add_(agreeing, alpha=weight)
        mass.add_(agreeing > 0, alpha=weight)
    return merged.mul_(sign).div_(mass.clamp_(min=LEAST_MASS))
