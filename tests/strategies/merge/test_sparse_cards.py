"""The worked examples of the methods that sparsify, and the pitfalls known from other implementations."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from evomerge.errors import CandidateError
from evomerge.recipe.holes import Scalar
from evomerge.strategies.merge.della import chances
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


@pytest.mark.parametrize("name", ["della", "della_linear"])
@pytest.mark.parametrize(("density", "epsilon"), [(0.1, 0.15), (0.9, 0.15), (0.3, 0.3), (1.0, 0.01)])
def test_della_chances_outside_0_and_1_are_refused(name: str, density: float, epsilon: float) -> None:
    with pytest.raises(CandidateError, match=r"density .* with epsilon .* choose an epsilon below"):
        around_zero(name, [RISING], density=(density,), epsilon=(epsilon,))


def test_della_chances_rise_evenly_with_the_rank_and_their_mean_is_the_density() -> None:
    check(chances(4, 0.6, 0.15), [0.75, 0.65, 0.55, 0.45])
    check(chances(1, 0.6, 0.15), [0.6])
    assert float(chances(1001, 0.37, 0.3).mean()) == pytest.approx(0.37)


def test_della_keeps_everything_where_no_chance_is_below_1() -> None:
    check(around_zero("della_linear", [RISING], density=(1.0,), epsilon=(0.0,)), RISING)


def test_sce_selects_weighs_and_erases() -> None:
    rows = [[1, 0.1, -0.4, 0], [-0.5, 0.1, 0.6, 0.2]]
    check(around_zero("sce", rows, {"select_topk": 0.67}), [1, 0, 0.6, 0])


def test_sce_weighs_what_agrees_by_its_energy() -> None:
    # energies 9 + 1 and 1 + 1
    check(around_zero("sce", [[3.0, 1.0], [1.0, -1.0]]), [(3 * 10 + 1 * 2) / 12, 1.0])


@pytest.mark.parametrize("models", [1, 2, 3, 20])
@pytest.mark.parametrize("select_topk", [0.05, 0.5, 1.0])
def test_sce_of_equal_experts_is_that_expert_and_not_the_base(models: int, select_topk: float) -> None:
    generator = torch.Generator().manual_seed(1)
    base, expert = torch.randn(2, 30, generator=generator)
    found = apply("sce", base, [expert.clone() for _ in range(models)], {"select_topk": select_topk})
    torch.testing.assert_close(found, expert)


def test_sce_keeps_at_least_one_entry() -> None:
    check(around_zero("sce", [[1.0, 0.2], [0.0, 0.1]], {"select_topk": 0.1}), [1.0, 0.0])


def test_sce_of_differences_whose_squares_are_zero_selects_nothing() -> None:
    experts = [torch.tensor([4e-30, 0.0]), torch.tensor([2e-30, 1e-30])]
    found = apply("sce", torch.zeros(2), experts, {"select_topk": 0.5})
    torch.testing.assert_close(found, torch.tensor([(4 * 16 + 2 * 5) / 21, 1.0]) * 1e-30, rtol=1e-5, atol=0)


TALL = [[1, 0.1, -0.5], [0.2, 0.8, 0.5]]


@pytest.mark.parametrize(
    ("least", "threshold", "expected"),
    [
        (2, 0.5, [0, 0, 0]),
        (1, 0.5, [1.2, 0.9, 0]),
        (0, 0.5, [1.2, 0.9, 0]),
        (1, 0.6, [1.2, 0.9, 0]),
        (1, 1.0, [1.2, 0.9, 0]),
        (2, 0.1, [1.2, 0.9, 0]),
    ],
)
def test_consensus_keeps_what_matters_to_enough_models(least: int, threshold: float, expected: list[float]) -> None:
    check(around_zero("consensus", TALL, {"least_models": least}, threshold=(threshold,) * 2), expected)


def test_consensus_compares_with_the_sum_and_not_with_the_base() -> None:
    # an implementation that takes the base for the sum compares |tau| with |tau| everywhere
    rows, base = [[1.0, 1.0], [2.0, -0.9]], tensor([100.0, 100.0])
    found = apply("consensus", base, [base + tensor(row) for row in rows], {"least_models": 2}, threshold=(0.4, 0.4))
    check(found, [103.0, 100.1])
    found = apply("consensus", base, [base + tensor(row) for row in rows], {"least_models": 2}, threshold=(0.6, 0.6))
    check(found, [100.0, 100.1])


def test_emr_takes_the_largest_of_the_elected_sign() -> None:
    check(around_zero("emr", [[0.9, -0.3, 0.2], [0.5, 0.4, -0.6]]), [0.9, 0.4, -0.6])


def test_magmax_takes_the_largest_of_all() -> None:
    check(around_zero("magmax", [[0.9, -0.8, 0.1], [-0.3, -0.9, 0.2]]), [0.9, -0.9, 0.2])


def test_vote_of_emr_and_choice_of_magmax_between_opposites_is_plus() -> None:
    for rows in ([[0.5], [-0.5]], [[-0.5], [0.5]]):
        for name in ("emr", "magmax"):
            check(around_zero(name, rows), [0.5])


def test_ram_averages_what_is_shared_and_keeps_what_is_not() -> None:
    rows = [[1, 0.2, 0], [0.5, 0, 0.4]]
    check(around_zero("ram", rows), [0.75, 0.2, 0.4])
    check(around_zero("ram_plus", rows), [0.75, 0.204, 0.408])


def test_ram_averages_over_those_who_changed_an_entry_alone() -> None:
    check(around_zero("ram", [[1.0, 1e-6], [0.5, 1e-6], [0.0, 1.0], [1e-6, 0.0]]), [0.75, 1.0])
