"""The worked examples of the methods' cards, and the pitfalls known from other implementations."""

import math

import pytest
import torch
from torch import Tensor

from evomerge.errors import CandidateError
from tests.strategies.merge.support import BASE, FIRST, SECOND, apply, tensor

EXPERTS = [tensor(FIRST), tensor(SECOND)]
TIES_ROWS = [[0.9, -0.8, 0.1, 0.05, 0.6], [-0.3, -0.7, 0.2, 0.5, 0.01], [0.4, 0.2, -0.9, 0.02, 0.3]]


def check(found: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, tensor(expected), atol=1e-5, rtol=0)


def test_linear_of_two_models_is_their_mean() -> None:
    check(apply("linear", None, EXPERTS), [1.3, 1.2, 1.4, 1.05])


def test_linear_without_normalizing_is_the_weighted_sum() -> None:
    check(apply("linear", None, EXPERTS, {"normalize": False}, weight=(0.5, 1.0)), [1.6, 2.0, 2.05, 1.6])


@pytest.mark.parametrize("name", ["linear", "task_arithmetic", "dare_linear"])
def test_weights_that_add_up_to_zero_cannot_be_normalized(name: str) -> None:
    with pytest.raises(CandidateError, match=r"the weights 1, -1 add up to zero .* normalize: false"):
        apply(name, tensor(BASE), EXPERTS, {"normalize": True}, weight=(1.0, -1.0))


@pytest.mark.parametrize(
    ("scale", "weights", "expected"),
    [
        (0.5, (1.0, 1.0), [1.3, 1.2, 1.4, 1.05]),
        (0.0, (1.0, 1.0), list(BASE)),
        (1.0, (1.0, -1.0), [2.4, 0.2, 1.2, 0.9]),
    ],
)
def test_task_arithmetic_scales_the_weighted_task_vectors(
    scale: float, weights: tuple[float, float], expected: list[float]
) -> None:
    check(apply("task_arithmetic", tensor(BASE), EXPERTS, {"scale": scale}, weight=weights), expected)


@pytest.mark.parametrize(
    ("t", "start", "end", "expected"),
    [
        (0.5, [1.0, 0.0], [0.0, 1.0], [math.sqrt(0.5), math.sqrt(0.5)]),
        (0.25, [2.0, 0.0], [0.0, 1.0], [1.847759, 0.382683]),
        (0.25, [1.0, 0.0], [1.0, 0.01], [1.0, 0.0025]),
        (0.5, [0.0, 0.0], [0.0, 2.0], [0.0, math.sqrt(2)]),
        (0.25, [1.0, 0.0], [-1.0, 0.0], [0.5, 0.0]),
        (0.5, [1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]),
        (0.0, [1.0, 2.0], [3.0, -1.0], [1.0, 2.0]),
        (1.0, [1.0, 2.0], [3.0, -1.0], [3.0, -1.0]),
    ],
)
def test_slerp_goes_along_the_arc_or_the_line(
    t: float, start: list[float], end: list[float], expected: list[float]
) -> None:
    check(apply("slerp", tensor(start), [tensor(end)], {"t": t}), expected)
    check(apply("slerp", None, [tensor(start), tensor(end)], {"t": t}), expected)


def test_slerp_of_two_equal_vectors_too_short_to_normalise_is_that_vector() -> None:
    short = tensor([1e-9, 0.0])
    torch.testing.assert_close(apply("slerp", short, [short.clone()]), short, atol=0, rtol=1e-12)


@pytest.mark.parametrize(
    ("merge_func", "expected"),
    [
        ("mean", [0.65, -0.75, -0.9, 0.5, 0.0]),
        ("sum", [1.3, -1.5, -0.9, 0.5, 0.0]),
        ("max", [0.9, -0.8, -0.9, 0.5, 0.0]),
    ],
)
def test_ties_keeps_exactly_the_share_asked_for(merge_func: str, expected: list[float]) -> None:
    experts = [tensor(row) for row in TIES_ROWS]
    found = apply("ties", torch.zeros(5, dtype=torch.float64), experts, {"merge_func": merge_func}, density=(0.4,) * 3)
    check(found, expected)


def test_ties_defaults_are_the_papers() -> None:
    base, experts = torch.zeros(5, dtype=torch.float64), [tensor(row) for row in TIES_ROWS]
    published = apply(
        "ties", base, experts, {"scale": 1.0, "merge_func": "mean"}, density=(0.2,) * 3, weight=(1.0,) * 3
    )
    assert apply("ties", base, experts).equal(published)


def test_ties_weights_count_before_the_vote() -> None:
    # unweighted the sum is +0.1 and plus wins; weighted it is 0.3 - 0.5 and minus wins
    experts = [tensor([0.6]), tensor([-0.5])]
    density = (1.0, 1.0)
    check(apply("ties", tensor([0.0]), experts, density=density), [0.6])
    check(apply("ties", tensor([0.0]), experts, density=density, weight=(0.5, 1.0)), [-0.5])


def test_ties_weighs_the_mean_of_what_agrees() -> None:
    experts = [tensor([1.0]), tensor([4.0]), tensor([-1.0])]
    check(apply("ties", tensor([0.0]), experts, density=(1.0,) * 3, weight=(1.0, 0.5, 1.0)), [(1 + 2) / 1.5])


def test_ties_vote_that_ends_at_zero_elects_plus() -> None:
    check(apply("ties", tensor([0.0]), [tensor([0.5]), tensor([-0.5])], density=(1.0, 1.0)), [0.5])


def test_ties_negative_weight_turns_an_expert_around() -> None:
    check(apply("ties", tensor([0.0]), [tensor([0.5])], density=(1.0,), weight=(-1.0,)), [-0.5])


def test_ties_expert_without_differences_contributes_nothing_to_the_mean() -> None:
    base = torch.zeros(4, dtype=torch.float64)
    found = apply("ties", base, [tensor([1.0, -2.0, 3.0, 4.0]), base.clone()], density=(1.0, 0.5))
    check(found, [1.0, -2.0, 3.0, 4.0])


def test_dare_unbiased_divides_by_the_density_and_l1_keeps_the_sum_of_magnitudes() -> None:
    tau = torch.linspace(-1, 1, 41, dtype=torch.float64)
    base = torch.zeros_like(tau)
    unbiased = apply("dare_linear", base, [tau], {"rescale": "unbiased"}, density=(0.5,))
    l1 = apply("dare_linear", base, [tau], {"rescale": "l1"}, density=(0.5,))
    kept = unbiased != 0
    assert 5 < int(kept.sum()) < 36
    torch.testing.assert_close(unbiased[kept], 2 * tau[kept])
    assert kept.equal(l1 != 0)
    torch.testing.assert_close(l1.abs().sum(), tau.abs().sum())
    assert float((l1[kept] / tau[kept]).std()) < 1e-12


def test_dare_l1_leaves_zeros_where_nothing_was_kept() -> None:
    base = torch.ones(3, dtype=torch.float64)
    found = apply("dare_linear", base, [base + 1], {"rescale": "l1"}, density=(0.001,))
    assert found.equal(base)


def test_dare_ties_sums_what_agrees_unless_asked_otherwise() -> None:
    base = torch.zeros(2, dtype=torch.float64)
    experts = [tensor([1.0, -1.0]), tensor([2.0, 3.0])]
    check(apply("dare_ties", base, experts, density=(1.0, 1.0)), [3.0, 3.0])
    check(apply("dare_ties", base, experts, {"merge_func": "mean"}, density=(1.0, 1.0)), [1.5, 3.0])
