"""The worked examples of the methods that sparsify, and the pitfalls known from other implementations."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from evomerge.recipe.holes import Scalar
from tests.strategies.merge.support import apply, tensor


def check(found: Tensor, expected: object) -> None:
    torch.testing.assert_close(found, tensor(expected), atol=1e-5, rtol=0)


def around_zero(name: str, rows: object, merge: Mapping[str, Scalar] | None = None, **each: Sequence[float]) -> Tensor:
    """Merge task vectors: the base is zero."""
    experts = list(tensor(rows))
    return apply(name, torch.zeros_like(experts[0]), experts, merge, **each)  # pyright: ignore[reportArgumentType]  # seed is not among them


RISING = [0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, -0.8, 0.9, -1.0]


@pytest.mark.parametrize("name", ["breadcrumbs", "breadcrumbs_ties"])
@pytest.mark.parametrize(
    ("density", "gamma", "expected"),
    [
        (0.6, 0.1, [0, 0, 0, -0.4, 0.5, -0.6, 0.7, -0.8, 0.9, 0]),
        (0.6, 0.0, [0, 0, 0, 0, 0.5, -0.6, 0.7, -0.8, 0.9, -1.0]),
        (0.9, 0.3, [0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, -0.8, 0.9, 0]),
        (1.0, 0.3, RISING),
    ],
    ids=["both tails", "no outliers asked for", "density comes first", "all kept"],
)
def test_breadcrumbs_drops_both_tails(name: str, density: float, gamma: float, expected: list[float]) -> None:
    check(around_zero(name, [RISING], density=(density,), gamma=(gamma,)), expected)
