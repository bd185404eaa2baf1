"""Interpolation along the great circle between two models, each tensor taken as one long vector."""

import math
from typing import TYPE_CHECKING

from evomerge.strategies.merge.mixtures import mixture
from evomerge.strategies.merge.protocol import Needs, Parameter, Parameters, TensorContext

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TINY = 1e-8
_COLINEAR = 0.9995


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
