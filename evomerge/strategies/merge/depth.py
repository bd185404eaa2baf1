"""Methods that tell layers by their depth: scaling that grows with it, and layers taken from one model or another.

Both are weighted sums, so adapters merged by them stay low-rank exactly.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evomerge.recipe.groups import layer_of
from evomerge.strategies.merge.protocol import Coefficients, Needs, Parameter, Parameters, TensorContext
from evomerge.strategies.merge.registry import method
from evomerge.strategies.merge.vectors import required

if TYPE_CHECKING:
    from torch import Tensor


def _scaled(ctx: TensorContext, params: Parameters) -> Coefficients:
    scale = _scale(ctx, params)
    return Coefficients(1.0 - scale, (scale,))


def _scale(ctx: TensorContext, params: Parameters) -> float:
    layer = layer_of(ctx.name)
    rise = layer / (ctx.layers - 1) if layer is not None and ctx.layers > 1 else 0.0
    return params.number("alpha") + params.number("beta") * rise


@method(
    "lines",
    title="LiNeS: scale a task vector by depth",
    needs=Needs(base="required", inputs=(1, 1)),
    parameters=(
        Parameter("alpha", "merge", 0.5, "The scale of the first layer, and of all outside the layers.", 0.0, 0.5),
        Parameter("beta", "merge", 0.5, "How much more the last layer is scaled with than the first.", 0.0, 1.0),
    ),
    source="Wang et al. 2024, LiNeS, arXiv:2410.17146",
    evidence="V",
    coefficients=_scaled,
)
def lines(ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters) -> "Tensor":
    """Return theta_0 + s_l (theta - theta_0) with s_l = alpha + beta l / (L-1) in layer l of L, and alpha elsewhere.

    The model may be a merge in its turn (`model: {method: ties, ...}`), which is how LiNeS joins any method that works
    on task vectors. Embeddings, the last norm and the head are scaled with alpha, and so is a single layer. For one
    fine-tune the paper takes beta = 1 - alpha; for the sum of N task vectors alpha = 1/N.
    """
    origin = required(base)
    return (inputs[0] - origin).mul_(_scale(ctx, params)).add_(origin)


def _swapped(ctx: TensorContext, params: Parameters) -> Coefficients:
    language = _language(ctx, params)
    return Coefficients(0.0, (language, 1.0 - language))


def _language(ctx: TensorContext, params: Parameters) -> float:
    """Return the share of the first model; what stands outside the layers goes with the nearest."""
    bottom, top, transition = (round(params.number(name)) for name in ("bottom", "top", "transition"))
    last = max(ctx.layers - 1, 0)
    named = layer_of(ctx.name)
    below = named if named is not None else 0 if ctx.depth < 1 else last
    above = last - below
    if below < bottom or above < top:
        return 1.0
    near_bottom, near_top = bottom > 0 and below < bottom + transition, top > 0 and above < top + transition
    return 0.5 if near_bottom or near_top else 0.0


def _layers(name: str, default: int, high: int, doc: str) -> Parameter:
    return Parameter(name, "merge", float(default), f"{doc} (a whole number, rounded).", 0.0, float(high), minimum=0.0)


@method(
    "layer_swap",
    title="Layer swapping: the first and last layers of one model, those between of another",
    needs=Needs(base="unused", inputs=(2, 2), ordered=True),
    parameters=(
        _layers("bottom", 4, 10, "How many of the first layers are the first model's"),
        _layers("top", 2, 8, "How many of the last layers are the first model's"),
        _layers("transition", 1, 3, "How many layers at each border are the mean of both"),
    ),
    source="Bandarkar et al. 2024, Layer swapping for zero-shot cross-lingual transfer, arXiv:2410.01335",
    evidence="R",
    coefficients=_swapped,
)
def layer_swap(ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters) -> "Tensor":  # noqa: ARG001  # the contract's arguments
    """Return the first model (a language) in the bottom and top layers, the second (a task) between, and their mean.

    That mean, (theta_1 + theta_2) / 2, stands in `transition` layers on the inner side of each border. Embeddings go
    with the first layer, the last norm and the head with the last. The paper says which layers are swapped and that
    there is a transition; the numbers of layers, the half and the place of what is no layer are our reconstruction.
    Without bottom and top it is the second model.
    """
    share = _language(ctx, params)
    if share in (0.0, 1.0):
        return inputs[0 if share else 1].clone()
    return inputs[0].mul(share).add_(inputs[1], alpha=1.0 - share)
