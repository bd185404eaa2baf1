"""Weighted sums: the average of models, and the sum of their task vectors.

Both are linear in the models, so they say their coefficients, and adapters merged by them stay low-rank exactly.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from evomerge.errors import CandidateError
from evomerge.strategies.merge.parameters import SCALE, SIGNED_WEIGHT, WEIGHT, normalize
from evomerge.strategies.merge.protocol import Coefficients, Needs, Parameters, TensorContext
from evomerge.strategies.merge.registry import method
from evomerge.strategies.merge.vectors import required

if TYPE_CHECKING:
    from torch import Tensor

_ZERO = 1e-8


def shares(params: Parameters) -> tuple[float, ...]:
    """Return the weights of the inputs, divided by their sum if `normalize`.

    Raises CandidateError where they are to be divided and add up to zero (below 1e-8 in magnitude).
    """
    weights = params.numbers("weight")
    if not params.flag("normalize"):
        return weights
    whole = sum(weights)
    if abs(whole) < _ZERO:
        raise CandidateError(
            f"the weights {', '.join(f'{weight:g}' for weight in weights)} add up to zero and cannot be normalized; "
            "change a weight, or set normalize: false"
        )
    return tuple(weight / whole for weight in weights)


def summed(origin: "Tensor", delta_of: "Callable[[int], Tensor]", params: Parameters) -> "Tensor":
    """Return theta_0 + scale * sum w_i delta_i, weights divided by their sum if `normalize`.

    `delta_of` gives the delta of an input by its index, a tensor of its own, which may be overwritten. Raises what
    `shares` raises.
    """
    first, *others = shares(params)
    result = delta_of(0).mul_(first)
    for index, share in enumerate(others, start=1):
        result.add_(delta_of(index), alpha=share)
    return result.mul_(params.number("scale")).add_(origin)


def _average(ctx: TensorContext, params: Parameters) -> Coefficients:  # noqa: ARG001  # the contract's arguments
    return Coefficients(0.0, shares(params))


def _task_sum(ctx: TensorContext, params: Parameters) -> Coefficients:  # noqa: ARG001  # the contract's arguments
    scale = params.number("scale")
    inputs = tuple(scale * share for share in shares(params))
    return Coefficients(1.0 - sum(inputs), inputs)


@method(
    "linear",
    title="Weighted average of models (model soup)",
    needs=Needs(base="unused", inputs=(1, None)),
    parameters=(WEIGHT, normalize(default=True)),
    source="Wortsman et al. 2022, Model soups, arXiv:2203.05482",
    evidence="V",
    coefficients=_average,
)
def linear(ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters) -> "Tensor":  # noqa: ARG001  # the contract's arguments
    """Return sum w_i theta_i, divided by sum w_i if `normalize`."""
    first, *others = shares(params)
    result = inputs[0] * first
    for tensor, share in zip(inputs[1:], others, strict=True):
        result.add_(tensor, alpha=share)
    return result


@method(
    "task_arithmetic",
    title="Sum of task vectors",
    needs=Needs(base="required", inputs=(1, None)),
    parameters=(SIGNED_WEIGHT, SCALE, normalize(default=False)),
    source="Ilharco et al. 2023, Editing models with task arithmetic, arXiv:2212.04089",
    evidence="V",
    coefficients=_task_sum,
)
def task_arithmetic(
    ctx: TensorContext,  # noqa: ARG001  # the contract's arguments
    base: "Tensor | None",
    inputs: "Sequence[Tensor]",
    params: Parameters,
) -> "Tensor":
    """Return theta_0 + scale * sum w_i (theta_i - theta_0); exactly theta_0 where all experts equal the base."""
    origin = required(base)
    return summed(origin, lambda index: inputs[index] - origin, params)
