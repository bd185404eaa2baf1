"""WIDEN: how much each column of a weight counts, by how far its length and its direction moved from the base.

Made for models that were trained differently far, where one number a model cannot do both justice.
"""

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from evomerge.recipe.groups import KNOWN_GROUPS
from evomerge.strategies.merge.mixtures import mixture, on_base
from evomerge.strategies.merge.protocol import Along, Needs, Parameter, Parameters, TensorContext

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PARALLEL = 1e-12
_BITS = 1 << 24


def _lying(ctx: TensorContext, params: Parameters) -> Along:  # noqa: ARG001  # the contract's arguments
    """Return what counts as a column: an embedding has its inputs, the tokens, in its rows."""
    return "row" if ctx.is_matrix and _is_embedding(ctx.name) else "column"


def _is_embedding(name: str) -> bool:
    def among(group: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in KNOWN_GROUPS[group])

    return among("embeddings") and not among("head")


@mixture(
    "widen",
    of="deltas",
    along=_lying,
    title="WIDEN: columns weighted by how far their length and direction moved",
    needs=Needs(base="required", inputs=(1, None), scope="tensor"),
    parameters=(
        Parameter(
            "t",
            "merge",
            1.0,
            "A column counts in full where its rank is above this many times its model's mean rank.",
            low=0.5,
            high=2.0,
            minimum=0.0,
        ),
        Parameter("s", "merge", 1.0, "The weight of a column that counts in full.", low=0.5, high=1.5),
    ),
    source="Yu et al. 2024, Extend model merging from fine-tuned to pre-trained LLMs, arXiv:2408.03092",
    evidence="V",
)
def widen(ctx: TensorContext, params: Parameters, products: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return theta_0 + sum w_i tau_i with w_ij = (score of length + score of direction) / 2 for column j.

    Length is | |theta_ij| - |theta_0j| |, direction 1 - cos(theta_ij, theta_0j); both become ranks among the columns
    of their model, 0 to (n-1)/n, and a score is the softmax of the ranks over the models, or `s` where the rank is
    above `t` times the model's mean rank. So weights may add up to more than 1. Equal ones (in their first 24 bits)
    rank by index. A zero column has moved no direction. Of embeddings, rows take the place of columns. A tensor of one
    dimension is scored entry by entry, by |tau_i| in place of ranks.
    """
    import numpy as np

    t, s = params.number("t"), params.number("s")
    if not ctx.is_matrix:
        moved = np.sqrt(np.diagonal(products, axis1=1, axis2=2)[:, 1:])
        mean = moved.sum(axis=0) / max(len(moved), 1)
        return on_base(products, _scores(moved, moved > t * mean, s))
    scores: list[NDArray[np.float64]] = []
    for moved in _moved(products):
        ranks = _ranks(moved)
        scores.append(_scores(ranks / max(len(ranks), 1), ranks > t * (len(ranks) - 1) / 2, s))
    return on_base(products, (scores[0] + scores[1]) / 2)


def _moved(products: "NDArray[np.float64]") -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Return how far columns' lengths and directions are from the base's, of shape (columns, inputs).

    Written in what the inputs differ in, so that small differences are not lost beside the base.
    """
    import numpy as np

    origin = products[:, :1, 0]
    along, own = products[:, 0, 1:], np.diagonal(products, axis1=1, axis2=2)[:, 1:]
    before, after = np.sqrt(origin), np.sqrt((origin + 2 * along + own).clip(min=0))
    length = np.abs(_quotient(2 * along + own, before + after))
    across = origin * own - along**2
    across = np.where(across > _PARALLEL * origin * own, across, 0.0)
    area, ahead = before * after, origin + along
    near = _quotient(across, area * (area + ahead))
    direction = np.where(ahead > 0, near, _quotient(area - ahead, area))
    return length, direction


def _quotient(above: "NDArray[np.float64]", below: "NDArray[np.float64]") -> "NDArray[np.float64]":
    import numpy as np

    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _ranks(moved: "NDArray[np.float64]") -> "NDArray[np.int64]":
    """Return each number's place among those of its model, from 0 up, equal ones in the order of their index."""
    import numpy as np

    mantissa, exponent = np.frexp(moved)
    rounded = np.ldexp(np.round(mantissa * _BITS), exponent)
    order = np.argsort(rounded, axis=0, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(len(order))[:, None], axis=0)
    return ranks


def _scores(moved: "NDArray[np.float64]", full: "NDArray[np.bool_]", s: float) -> "NDArray[np.float64]":
    import numpy as np

    shares = np.exp(moved - moved.max(axis=1, keepdims=True))
    return np.where(full, s, shares / shares.sum(axis=1, keepdims=True))
