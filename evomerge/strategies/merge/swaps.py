"""Taking over from one model what is near the base, or what matters most: two methods for a base and one model."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from evomerge.strategies.merge.protocol import Needs, Parameter, Parameters, TensorContext
from evomerge.strategies.merge.registry import method
from evomerge.strategies.merge.vectors import required

if TYPE_CHECKING:
    from torch import Tensor

_EPSILON = 1e-8
_PIECE = 1 << 16


@method(
    "nearswap",
    title="NearSwap: move every entry towards another model by at most t",
    needs=Needs(base="required", inputs=(1, 1)),
    parameters=(
        Parameter(
            "t",
            "merge",
            1e-4,
            "The largest step; entries that differ by less become the other model's.",
            low=1e-5,
            high=1e-2,
            log=True,
            minimum=0.0,
        ),
    ),
    source="alchemonaut, NearSwap (QuartetAnemoi-70B-t0.0001), in mergekit",
    evidence="V",
)
def nearswap(ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters) -> "Tensor":  # noqa: ARG001  # the contract's arguments
    """Return (1-w) theta_0 + w theta with w = min(t / |theta - theta_0|, 1), 1 where both are equal.

    That is theta_0 + clip(theta - theta_0, -t, t), which is how it is computed.
    """
    origin, t = required(base), params.number("t")
    return (inputs[0] - origin).clamp_(-t, t).add_(origin)


@method(
    "arcee_fusion",
    title="Arcee Fusion: take over the entries that matter most",
    needs=Needs(base="required", inputs=(1, 1), scope="tensor"),
    parameters=(),
    source="Arcee AI, Arcee Fusion, in mergekit (github.com/arcee-ai/mergekit)",
    evidence="V",
)
def arcee_fusion(ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters) -> "Tensor":  # noqa: ARG001  # the contract's arguments
    """Return theta where its importance is at least median + 1.5 (third quartile - first), and theta_0 elsewhere.

    An entry's importance is |theta - theta_0| KL, with KL = sum p log(p/q) over its row (last dimension) for
    p = softmax(theta) + 1e-8 and q = softmax(theta_0) + 1e-8, in float64. A quartile q of n numbers is the one at
    place int(q (n-1)) in rising order, over all of them; mergekit samples a million of larger tensors. Where at least
    three quarters have no importance the threshold is zero, and all of theta is taken.
    """
    import torch

    origin = required(base)
    if not origin.numel():
        return origin.clone()
    found = importance(origin, inputs[0], divergences(origin, inputs[0]))
    return torch.where(found >= threshold(found), inputs[0], origin)


def divergences(origin: "Tensor", other: "Tensor") -> "Tensor":
    """Return the divergence of every row, in float64."""
    import torch

    result = torch.empty(origin.numel() // _columns(origin), dtype=torch.float64, device=origin.device)
    for span, old, new in _rows(origin, other):
        p, q = (torch.softmax(tensor, dim=1).add_(_EPSILON) for tensor in (new, old))
        result[span] = (p * (p / q).log_()).sum(dim=1)
    return result


def importance(origin: "Tensor", other: "Tensor", divergence: "Tensor") -> "Tensor":
    """Return the importance of every entry, of the tensors' shape and dtype, given the divergence of every row."""
    import torch

    result = torch.empty_like(origin).view(-1, _columns(origin))
    for span, old, new in _rows(origin, other):
        result[span] = (new - old).abs_() * divergence[span, None]
    return result.reshape(origin.shape)


def threshold(importance: "Tensor") -> float:
    """Return the importance from which on entries are taken over."""
    flat = importance.flatten()
    last = flat.numel() - 1
    first, median, third = (float(flat.kthvalue(last * quarter // 4 + 1).values) for quarter in (1, 2, 3))
    return median + 1.5 * (third - first)


def _columns(tensor: "Tensor") -> int:
    return tensor.shape[-1] if tensor.dim() else 1


def _rows(origin: "Tensor", other: "Tensor") -> "Iterator[tuple[slice, Tensor, Tensor]]":
    """Yield some rows of both tensors at a time, in float64."""
    columns = _columns(origin)
    step = max(_PIECE // columns, 1)
    for start in range(0, origin.numel() // columns, step):
        span = slice(start, start + step)
        old, new = (tensor.reshape(-1, columns)[span].double() for tensor in (origin, other))
        yield span, old, new
