"""Interpolation and means on the sphere: along the great circle between two models, or between many.

Vectors are whole tensors unless a method says otherwise. All of it happens in the span of the models, so inner products
are enough, and the angles are those of float64.
"""

import math
from typing import TYPE_CHECKING

from evomerge.strategies.merge.averages import shares
from evomerge.strategies.merge.mixtures import directions, mixture, of_inputs, on_base
from evomerge.strategies.merge.parameters import WEIGHT, normalize
from evomerge.strategies.merge.protocol import Along, Needs, Parameter, Parameters, TensorContext

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TINY = 1e-8
_COLINEAR = 0.9995
_SMALL = 1e-6  # products in float64 do not tell smaller angles from none
_OPPOSED = 1e-4


@mixture(
    "slerp",
    of="models",
    title="Spherical interpolation between two models",
    needs=Needs(base="counted", inputs=(2, 2), scope="tensor", ordered=True),
    parameters=(
        Parameter(
            "t",
            "merge",
            0.5,
            "Where between the two: 0 is the base (or the first model), 1 the other.",
            low=0.0,
            high=1.0,
            minimum=0.0,
            maximum=1.0,
        ),
    ),
    source="Shoemake 1985, Animating rotation with quaternion curves, SIGGRAPH",
    evidence="V",
)
def slerp(ctx: TensorContext, params: Parameters, products: "NDArray[np.float64]") -> "NDArray[np.float64]":  # noqa: ARG001  # the contract's arguments
    """Return sin((1-t)W)/sin W v_0 + sin(tW)/sin W v_1, with W the angle between the two whole tensors.

    The start v_0 is the base, or the first of two inputs. Lengths are not made equal. A vector no longer than 1e-8 is
    not normalised for the angle (a zero tensor is at a right angle to all). Vectors that are nearly parallel or
    antiparallel (|cos W| > 0.9995), or both that short, are interpolated on the straight line, which for antiparallel
    ones leads through zero.
    """
    import numpy as np

    t = params.number("t")
    angle = _angle(products[0])
    if angle is None:
        return np.array([[1 - t, t]])
    whole = math.sin(angle)
    return np.array([[math.sin((1 - t) * angle) / whole, math.sin(t * angle) / whole]])


def _angle(products: "NDArray[np.float64]") -> float | None:
    """Return the angle between two vectors in radians, or None where the straight line is to be taken."""
    lengths = [math.sqrt(products[index, index]) for index in range(2)]
    if max(lengths) <= _TINY:
        return None
    cosine = float(products[0, 1])
    for length in lengths:
        cosine /= length if length > _TINY else 1.0
    return None if abs(cosine) > _COLINEAR else math.acos(cosine)


def _lying(ctx: TensorContext, params: Parameters) -> Along:
    if params.flag("flatten") or not ctx.is_matrix:
        return "tensor"
    return "column" if params.flag("row_wise") else "row"


@mixture(
    "nuslerp",
    of="deltas",
    along=_lying,
    title="Spherical interpolation between two models or two task vectors, by weights",
    needs=Needs(base="optional", inputs=(2, 2), scope="tensor"),
    parameters=(
        WEIGHT,
        Parameter(
            "flatten", "merge", True, "Whether a tensor is one vector; else it is many of them.", choices=(True, False)
        ),
        Parameter(
            "row_wise",
            "merge",
            False,
            "Without flatten: whether a vector runs over a matrix's rows, one for each column, or is one of its rows.",
            choices=(True, False),
        ),
    ),
    source="Goddard, NuSLERP, in mergekit (github.com/arcee-ai/mergekit)",
    evidence="V",
)
def nuslerp(ctx: TensorContext, params: Parameters, products: "NDArray[np.float64]") -> "NDArray[np.float64]":  # noqa: ARG001  # the contract's arguments
    """Return theta_0 + slerp(tau_1, tau_2; t), or slerp(theta_1, theta_2; t) without a base; t = w_2 / (w_1 + w_2).

    slerp is sin((1-t)W)/sin W v_1 + sin(tW)/sin W v_2 with W the angle between the vectors, and t is a half where the
    weights add up to zero (below 1e-6). A zero vector is at a right angle to all. Parallel and opposed vectors
    (sin W < 1e-6) are interpolated on the straight line, which for opposed ones leads through zero. Tensors of one
    dimension are one vector.
    """
    import numpy as np

    first, second = params.numbers("weight")
    t = second / (first + second) if abs(first + second) >= _SMALL else 0.5
    _, cosines = directions(of_inputs(products, params))
    angle = np.arccos(cosines[:, 0, 1])
    sine = np.sin(angle)[:, None]
    line = np.tile([1 - t, t], (len(angle), 1))
    return on_base(products, np.divide(np.sin(np.outer(angle, [1 - t, t])), sine, out=line, where=sine >= _SMALL))


@mixture(
    "multislerp",
    of="deltas",
    title="Weighted mean of directions, at the weighted mean length",
    needs=Needs(base="optional", inputs=(1, None), scope="tensor"),
    parameters=(WEIGHT, normalize(default=True)),
    source="Goddard, Multi-SLERP, in mergekit (goddard.blog/posts/multislerp-wow-what-a-cool-idea)",
    evidence="D",
)
def multislerp(ctx: TensorContext, params: Parameters, products: "NDArray[np.float64]") -> "NDArray[np.float64]":  # noqa: ARG001  # the contract's arguments
    """Return theta_0 + (sum w_i |tau_i|) m / |m| with m = sum w_i tau_i / |tau_i|, or of models without a base.

    It is what the usual procedure (project unit vectors to the tangent space at the direction of m, average there, go
    back) comes to: the projection is linear and m is normal to that space, so the averaged tangent is zero. That makes
    it no mean on the sphere; karcher is one. A zero vector has no direction and still counts in the length. Where
    directions cancel (|m| < 1e-6 sum |w_i|) it is the weighted sum itself.
    """
    import numpy as np

    weights = np.array(shares(params))
    lengths, cosines = directions(of_inputs(products, params))
    summed = np.sqrt(np.einsum("i,vij,j->v", weights, cosines, weights).clip(min=0))[:, None]
    whole = (lengths @ weights)[:, None]
    plain = np.tile(weights, (len(lengths), 1))
    somewhere = (summed >= _SMALL * np.abs(weights).sum()) & (summed > 0)
    turned = np.divide(whole * weights, summed * lengths, out=np.zeros_like(lengths), where=somewhere & (lengths > 0))
    return on_base(products, np.where(somewhere, turned, plain))


@mixture(
    "karcher",
    of="models",
    title="Mean on the sphere (Karcher), at the mean length",
    needs=Needs(base="unused", inputs=(1, None), scope="tensor"),
    parameters=(
        Parameter("max_iter", "merge", 10, "The largest number of steps to the mean.", minimum=1),
        Parameter("tol", "merge", 1e-5, "The length of a step, in radians, below which there is no other.", minimum=0),
    ),
    source="Karcher 1977, Riemannian center of mass and mollifier smoothing; its use for models: mergekit",
    evidence="V",
)
def karcher(ctx: TensorContext, params: Parameters, products: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return (1/N sum |theta_i|) x, with x the point of the sphere whose squared angles to all directions sum least.

    From the direction of sum theta_i/|theta_i| it goes to x' = cos|T| x + sin|T| T/|T| with T the mean of the tangents
    to all directions, W_i/sin W_i (u_i - cos W_i x) with cos W_i = x . u_i, until |T| < `tol`. The steps are made in
    the span of the models, so they cost nothing. A zero vector has no direction and still counts in the length;
    a direction opposed to x (to 1e-4 radians) has no tangent. Where all directions cancel, it starts at the one of
    the model of smallest fingerprint.
    """
    import numpy as np

    found, cosines = directions(products)
    lengths, weights = found[0], np.zeros_like(found)
    there = sorted(np.flatnonzero(lengths), key=lambda index: ctx.fingerprints[index])
    if there:
        mean = _mean(cosines[0][np.ix_(there, there)], int(params.number("max_iter")), params.number("tol"))
        weights[0, there] = mean * lengths.mean() / lengths[there]
    return weights


def _mean(cosines: "NDArray[np.float64]", steps: int, tolerance: float) -> "NDArray[np.float64]":
    """Return the mean of unit vectors as the coefficients of a sum of them."""
    import numpy as np

    def length(of: "NDArray[np.float64]") -> float:
        return math.sqrt(max(float(of @ cosines @ of), 0.0))

    count = len(cosines)
    mean = np.full(count, 1 / count)
    mean = mean / length(mean) if length(mean) >= _SMALL else np.eye(count)[0]
    for _ in range(steps):
        near = np.clip(cosines @ mean, -1.0, 1.0)
        angle = np.arccos(near)
        pull = np.where(angle < math.pi - _OPPOSED, 1 / (count * np.sinc(angle / math.pi).clip(min=_SMALL)), 0.0)
        tangent = pull - float(pull @ near) * mean
        step = length(tangent)
        if step < max(tolerance, _TINY):
            break
        mean = math.cos(step) * mean + math.sin(step) / step * tangent
        mean = mean / length(mean)
    return mean
