"""DELLA: entries of the task vectors are dropped at random, small ones of a row more often than large ones.

The random numbers are those of `masks`, so an expert's entries are the same whatever its place, and ranks are counted
on magnitudes as `magnitudes` compares them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evomerge.errors import CandidateError
from evomerge.strategies.merge.averages import summed
from evomerge.strategies.merge.magnitudes import bins
from evomerge.strategies.merge.masks import drop_each_, expert_key
from evomerge.strategies.merge.parameters import MERGE_FUNC, RESCALE, SCALE, SIGNED_WEIGHT, normalize
from evomerge.strategies.merge.protocol import Needs, Parameter, Parameters, TensorContext
from evomerge.strategies.merge.registry import method
from evomerge.strategies.merge.ties import voted
from evomerge.strategies.merge.vectors import as_rows, mass, required, row_blocks, with_mass_

if TYPE_CHECKING:
    from torch import Tensor

_NEEDS = Needs(base="required", inputs=(1, None), scope="tensor")
_SOURCE = "Deep, Bhardwaj and Poria 2024, DELLA-Merging, arXiv:2406.11617"
_DENSITY = Parameter(
    "density",
    "input",
    0.7,
    "Mean chance of this model's differences to the base to be kept (1 minus DELLA's drop rate).",
    low=0.2,
    high=0.84,
    minimum=0.001,
    maximum=1.0,
)
_EPSILON = Parameter(
    "epsilon",
    "input",
    0.15,
    "How far the chance of a row's largest difference lies above the density, and of its smallest below. Chances must "
    "stay above 0 and at most 1.",
    low=0.0,
    high=0.15,
    minimum=0.0,
    maximum=0.5,
)
_ROUNDING = 1e-9


def span_of_chances(count: int, density: float, epsilon: float) -> tuple[float, float]:
    """Return the chance of a row's smallest entry to be kept, and by how much it rises from entry to entry.

    Raises CandidateError where chances are not above 0 and at most 1.
    """
    if density - epsilon < _ROUNDING or density + epsilon > 1 + _ROUNDING:
        raise CandidateError(
            f"density {density:g} with epsilon {epsilon:g} gives chances from {density - epsilon:g} to "
            f"{density + epsilon:g}, and they must be above 0 and at most 1; "
            f"choose an epsilon below {min(density, 1 - density):g}"
        )
    return (density, 0.0) if count == 1 else (density - epsilon, 2 * epsilon / max(count - 1, 1))


def chances(count: int, density: float, epsilon: float) -> "Tensor":
    """Return the chance to be kept of a row's entries, the largest first: float32 of shape (count,).

    They fall evenly from density + epsilon to density - epsilon; a single entry has the density. Raises what
    `span_of_chances` raises.
    """
    import torch

    lowest, step = span_of_chances(count, density, epsilon)
    rank = torch.arange(count - 1, -1, -1, dtype=torch.float32)
    return rank.mul_(step).add_(lowest).clamp_(max=1)


def _dropped(
    ctx: TensorContext, origin: "Tensor", inputs: "Sequence[Tensor]", params: Parameters, index: int
) -> "Tensor":
    """Return an expert's task vector after entries were dropped at random and the rest rescaled."""
    delta = (inputs[index] - origin).contiguous()
    own = params.inputs[index]
    key = expert_key(ctx.seed, ctx.name, ctx.fingerprints[index])
    l1 = params.choice("rescale") == "l1"
    before = mass(delta) if l1 else 0.0
    matrix = as_rows(delta)
    rows, columns = matrix.shape
    kept_with = chances(columns, float(own["density"]), float(own["epsilon"])).to(delta.device)
    growth = kept_with.to(delta.dtype).reciprocal()
    for block in row_blocks(rows, columns):
        part = matrix[block]
        order = _by_magnitude(part)
        drop_each_(part.view(-1), key, _placed(order, kept_with), offset=block.start * columns)
        if not l1:
            part.mul_(_placed(order, growth).view_as(part))
    return with_mass_(delta, before) if l1 else delta


def _by_magnitude(rows: "Tensor") -> "Tensor":
    """Return the columns of each row by falling magnitude, of equal ones the lowest first."""
    import torch

    found = bins(rows).to(torch.int16).view_as(rows)
    return found.argsort(dim=1, descending=True, stable=True)


def _placed(order: "Tensor", by_rank: "Tensor") -> "Tensor":
    """Return, flat, what each entry of some rows gets by its rank."""
    import torch

    found = torch.empty_like(order, dtype=by_rank.dtype)
    return found.scatter_(1, order, by_rank.expand_as(order)).view(-1)


@method(
    "della",
    title="DELLA: drop small differences at random more often than large ones, elect sign, merge what agrees",
    needs=_NEEDS,
    parameters=(SIGNED_WEIGHT, _DENSITY, _EPSILON, SCALE, RESCALE, MERGE_FUNC),
    source=_SOURCE,
    evidence="A",
)
def della(ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters) -> "Tensor":
    """Return theta_0 + scale * consensus of the dropped task vectors, weights multiplied in before the vote.

    Within each row (first index; a tensor of one dimension is one row) of n entries the one of ascending rank r in
    magnitude is kept with the chance p = density - epsilon + 2 epsilon (r - 1) / (n - 1), and divided by p. A row of
    one entry has p = density. The chances agree with the common code, the division with the paper's text.
    """
    origin = required(base)
    return voted(ctx, origin, lambda index: _dropped(ctx, origin, inputs, params, index), params)


@method(
    "della_linear",
    title="DELLA: drop small differences at random more often than large ones, then sum",
    needs=_NEEDS,
    parameters=(SIGNED_WEIGHT, _DENSITY, _EPSILON, SCALE, RESCALE, normalize(default=False)),
    source=_SOURCE,
    evidence="A",
)
def della_linear(ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters) -> "Tensor":
    """Return theta_0 + scale * sum w_i drop(theta_i - theta_0), with the dropping of `della`."""
    origin = required(base)
    return summed(origin, lambda index: _dropped(ctx, origin, inputs, params, index), params)
