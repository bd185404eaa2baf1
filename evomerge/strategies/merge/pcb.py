"""PCB-Merging: entries compete, within their model by length and between models by agreement, and the best are kept.

What is compared and where the limits lie is counted over the whole model first. The order statistics among these
limits are right within 1 in 4096 (see `values`).
"""

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, cast

from evomerge.strategies.merge.parameters import SCALE
from evomerge.strategies.merge.protocol import Needs, Parameter, Parameters, Stage, TensorContext
from evomerge.strategies.merge.registry import method
from evomerge.strategies.merge.ties import ballot
from evomerge.strategies.merge.values import Values, keys
from evomerge.strategies.merge.vectors import required
from evomerge.strategies.merge.whole import OfInputs

if TYPE_CHECKING:
    from torch import Tensor

LEAST_SCORE = 1e-12
"""What a sum of scores counts at least."""
_CLAMPED = 1e-4  # share of the entries at each end whose magnitudes are cut


def count_lengths(ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]") -> OfInputs[Values]:  # noqa: ARG001  # the contract's arguments
    """Return the magnitudes of every input's task vector."""
    origin = required(base)
    return OfInputs(tuple(Values.of((tensor - origin).abs()) for tensor in inputs))


def count_balances(ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]") -> OfInputs[Values]:
    """Return the balances of every input's entries, with the lengths as the stage before."""
    return _balances_within(ctx, required(base), inputs, cast("OfInputs[Values]", ctx.whole[0].total))


def _balances_within(
    ctx: TensorContext, origin: "Tensor", inputs: "Sequence[Tensor]", lengths: OfInputs[Values]
) -> OfInputs[Values]:
    deltas, together = _task_vectors(ctx, origin, inputs)
    each = zip(deltas, lengths.each, strict=True)
    return OfInputs(tuple(Values.of(_balance(delta, together, own, len(deltas))) for delta, own in each))


def _task_vectors(ctx: TensorContext, origin: "Tensor", inputs: "Sequence[Tensor]") -> "tuple[list[Tensor], Tensor]":
    """Return the task vectors, and their sum in an order that does not depend on the recipe's."""
    import torch

    deltas = [tensor - origin for tensor in inputs]
    together = reduce(torch.add, (deltas[index] for index in ballot(ctx, (1.0,) * len(deltas))))
    largest = torch.finfo(together.dtype).max
    return deltas, together.clamp_(-largest, largest)


def limits(lengths: Values) -> tuple[float, float]:
    """Return the magnitudes beyond which those of a model are cut, at both ends."""
    if not lengths.size:
        return 0.0, 0.0
    cut = int(lengths.size * _CLAMPED)
    return lengths.value_at(cut), lengths.value_at(lengths.size - 1 - cut)


def _balance(delta: "Tensor", together: "Tensor", lengths: Values, models: int) -> "Tensor":
    """Return what decides between the entries of a model, times the positive number exp(-models)."""
    low, high = limits(lengths)
    span = high - low
    standing = (delta.abs().clamp_(low, high) - low).div_(span) if span > 0 else delta * 0
    return standing.square_().sub_(1).mul_(models).exp_().mul_((delta * together).tanh_())


def least_balance(found: Values, density: float) -> tuple[int, float]:
    """Return the key and the value of the balance from which on entries of a model win. There must be entries."""
    position = min(int(found.size * (1 - density)), found.size - 1)
    return found.key_at(position), found.value_at(position)


def _score(balance: "Tensor", found: Values, density: float) -> "Tensor":
    """Return the balances from their limit up, brought to [0, 1]; zeros where none is above the limit."""
    import torch

    if not found.size:
        return balance
    key, limit = least_balance(found, density)
    span = found.highest - limit
    if span <= 0:
        return balance.zero_()
    above = keys(balance) > key
    return torch.where(above, (balance - limit).div_(span), 0.0)


def _stages(params: Parameters) -> tuple[Stage, ...]:
    return (count_lengths, count_balances) if params.choice("scope") == "model" else ()


@method(
    "pcb",
    title="PCB-Merging: let entries compete within and between models, and keep the best",
    needs=Needs(base="required", inputs=(1, None), scope="model"),
    parameters=(
        Parameter("weight", "input", 1.0, "How much this model's entries count.", low=0.8, high=1.3),
        Parameter(
            "density",
            "input",
            0.1,
            "Share of this model's entries that wins something, those of largest balance.",
            low=0.01,
            high=0.5,
            minimum=0.0,
            maximum=1.0,
        ),
        Parameter("scale", "merge", 1.2, SCALE.doc, low=0.5, high=2.0, log=True),
        Parameter(
            "scope",
            "merge",
            "model",
            "Among what entries compete: all of their model, or those of their tensor.",
            choices=("model", "tensor"),
        ),
    ),
    source="Du et al. 2024, Parameter Competition Balancing for Model Merging, arXiv:2410.02396",
    evidence="V",
    stages=_stages,
)
def pcb(ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters) -> "Tensor":
    """Return theta_0 + scale * sum w_i n_i s_i / max(sum s_i, 1e-12), element by element.

    With d entries in `scope` and N models: n_i is tau_i with its magnitude cut to the order statistics of |tau_i| at
    the places c and d - 1 - c, c = int(d / 10000). The balance of an entry is exp(N m(|n_i|)^2) tanh(tau_i sum tau_j),
    where m brings the smallest to 0 and the largest to 1, and is 0 where they are equal. Balances are cut from below at
    their order statistic at int(d (1 - density)), and m of them is the score s_i. A balance that equals this limit in
    12 significant bits has the score 0. Not homogeneous: the tanh sees the lengths of the task vectors.
    """
    import torch

    origin = required(base)
    if params.choice("scope") == "model":
        lengths, balances = (cast("OfInputs[Values]", whole.total) for whole in ctx.whole)
    else:
        lengths = count_lengths(ctx, base, inputs)
        balances = _balances_within(ctx, origin, inputs, lengths)
    deltas, together = _task_vectors(ctx, origin, inputs)
    weights, densities = params.numbers("weight"), params.numbers("density")
    merged, scores = torch.zeros_like(together), torch.zeros_like(together)
    for index in ballot(ctx, weights):
        delta, length = deltas[index], lengths.each[index]
        score = _score(_balance(delta, together, length, len(deltas)), balances.each[index], densities[index])
        low, high = limits(length)
        merged.add_(delta.abs().clamp_(low, high).mul_(delta.sign()).mul_(score), alpha=weights[index])
        scores.add_(score)
    return merged.div_(scores.clamp_(min=LEAST_SCORE)).mul_(params.number("scale")).add_(origin)
