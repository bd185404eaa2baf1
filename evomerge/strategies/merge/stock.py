"""Model Stock: how far from the base to the mean of its fine-tunes, from the angles between them."""

from typing import TYPE_CHECKING

from evomerge.strategies.merge.mixtures import directions, mixture, of_inputs, on_base
from evomerge.strategies.merge.protocol import Along, Needs, Parameter, Parameters, TensorContext

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_POLE = 1e-9


def _lying(ctx: TensorContext, params: Parameters) -> Along:  # noqa: ARG001  # the contract's arguments
    return "row" if params.flag("filter_wise") else "tensor"


@mixture(
    "model_stock",
    of="deltas",
    along=_lying,
    title="Model Stock: from the base towards the mean, by the angle between task vectors",
    needs=Needs(base="required", inputs=(2, None), scope="tensor"),
    parameters=(
        Parameter(
            "filter_wise",
            "merge",
            False,
            "Whether each row of a matrix has an angle of its own, or the tensor as a whole.",
            choices=(True, False),
        ),
        Parameter(
            "clamp",
            "merge",
            True,
            "Whether the way is kept between the base (0) and the mean (1); opposed task vectors lead outside.",
            choices=(True, False),
        ),
    ),
    source="Jang et al. 2024, Model Stock, arXiv:2403.19522",
    evidence="V",
)
def model_stock(ctx: TensorContext, params: Parameters, products: "NDArray[np.float64]") -> "NDArray[np.float64]":  # noqa: ARG001  # the contract's arguments
    """Return theta_0 + t mean(tau_i) with t = N c / (1 + (N-1) c), c the mean cosine over pairs of task vectors.

    The paper says t for two models, and for more the mean over pairs is the common reading. A task vector of zeros has
    cosine 0 to all. t is below 0 for c < 0 and has a pole at c = -1/(N-1), where directions cancel, so it is clamped to
    [0, 1]; without `clamp` it is 0 at the pole alone. A tensor of one dimension is one row.
    """
    import numpy as np

    count = len(params.inputs)
    _, cosines = directions(of_inputs(products, params))
    mean = cosines[:, ~np.eye(count, dtype=bool)].mean(axis=1)
    if params.flag("clamp"):
        mean = np.clip(mean, 0.0, 1.0)
    divisor = 1 + (count - 1) * mean
    towards = np.divide(mean, divisor, out=np.zeros_like(mean), where=np.abs(divisor) >= _POLE)
    return on_base(products, np.repeat(towards[:, None], count, axis=1))
