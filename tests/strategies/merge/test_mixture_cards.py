"""The worked examples of means of directions, of columns and of swaps, and the pitfalls of other implementations."""

import numpy as np
import pytest
import torch
from torch import Tensor

from evomerge.recipe.values import Scalar
from evomerge.strategies.merge.protocol import TensorContext
from evomerge.strategies.merge.registry import get
from tests.strategies.merge import reference_mixtures
from tests.strategies.merge.support import apply, array, parameters, tensor


def check(found: Tensor, expected: object) -> None:
    torch.testing.assert_close(found, tensor(expected), atol=1e-5, rtol=0)


def test_nuslerp_goes_along_the_arc_between_task_vectors() -> None:
    check(
        apply("nuslerp", tensor([1.0, 1.0]), [tensor([2.0, 1.0]), tensor([1.0, 3.0])], weight=(1.0, 3.0)),
        [1.382683, 2.847759],
    )
    check(apply("nuslerp", None, [tensor([1.0, 0.0]), tensor([0.0, 2.0])], weight=(1.0, 3.0)), [0.382683, 1.847759])


def test_nuslerp_whose_weights_cancel_goes_half_the_way() -> None:
    pair = [tensor([1.0, 0.0]), tensor([0.0, 1.0])]
    check(apply("nuslerp", None, pair, weight=(1.0, -1.0)), [0.5**0.5] * 2)


def test_nuslerp_takes_rows_or_columns_as_vectors_of_their_own() -> None:
    first, second = tensor([[1.0, 0.0], [2.0, 0.0]]), tensor([[0.0, 1.0], [2.0, 0.0]])
    half = 0.5**0.5
    check(apply("nuslerp", None, [first, second], {"flatten": False}), [[half, half], [2.0, 0.0]])
    first, second = first.T.contiguous(), second.T.contiguous()
    check(apply("nuslerp", None, [first, second], {"flatten": False, "row_wise": True}), [[half, 2.0], [half, 0.0]])


@pytest.mark.parametrize("row_wise", [True, False])
def test_nuslerp_takes_a_tensor_of_one_dimension_as_one_vector(row_wise: bool) -> None:
    pair = [tensor([1.0, 0.0]), tensor([0.0, 1.0])]
    check(apply("nuslerp", None, pair, {"flatten": False, "row_wise": row_wise}), [0.5**0.5] * 2)


def test_nuslerp_between_opposed_vectors_keeps_to_the_line_though_cosines_are_rounded() -> None:
    generator = torch.Generator().manual_seed(4)
    first = torch.randn(1000, generator=generator)
    torch.testing.assert_close(apply("nuslerp", None, [first, first * -0.7]), first * 0.15)


def test_multislerp_has_the_mean_direction_and_the_mean_length() -> None:
    models = [tensor([1.0, 0, 0]), tensor([0, 2.0, 0]), tensor([0, 0, 3.0])]
    check(apply("multislerp", None, models, weight=(1.0, 1.0, 2.0)), [0.918559, 0.918559, 1.837117])


def test_multislerp_is_what_the_steps_on_the_sphere_come_to_because_their_tangent_is_zero() -> None:
    generator = torch.Generator().manual_seed(6)
    base, *models = (torch.randn(9, dtype=torch.float64, generator=generator) for _ in range(5))
    weights = (0.3, 1.0, 0.2, 0.7)
    expected, tangent = reference_mixtures.multislerp_and_tangent(array(base), [array(m) for m in models], weights)
    assert np.linalg.norm(tangent) < 1e-15
    np.testing.assert_allclose(apply("multislerp", base, models, weight=weights).numpy(), expected, rtol=1e-12)


def test_multislerp_and_karcher_are_different_means() -> None:
    models = [tensor([1.0, 0, 0]), tensor([1.0, 0, 0]), tensor([0, 1.0, 0])]
    check(apply("multislerp", None, models), [0.894427, 0.447214, 0.0])
    check(apply("karcher", None, models), [0.866025, 0.5, 0.0])


def test_multislerp_of_directions_that_cancel_is_the_weighted_sum() -> None:
    opposed = [tensor([3.0, 0.0]), tensor([-1.0, 0.0])]
    check(apply("multislerp", None, opposed), [1.0, 0.0])
    check(apply("multislerp", None, [*opposed, *opposed]), [1.0, 0.0])


def test_karcher_of_two_lies_half_way_at_their_mean_length() -> None:
    check(apply("karcher", None, [tensor([1.0, 0.0]), tensor([0.0, 1.0])]), [0.707107, 0.707107])
    check(apply("karcher", None, [tensor([2.0, 0.0]), tensor([0.0, 1.0])]), [1.06066, 1.06066])


def test_karcher_counts_a_zero_vector_in_the_length_alone() -> None:
    check(apply("karcher", None, [tensor([2.0, 0.0]), tensor([0.0, 1.0]), tensor([0.0, 0.0])]), [0.707107, 0.707107])


def test_karcher_of_opposed_models_has_the_direction_of_the_smallest_fingerprint_in_any_order() -> None:
    one, other = tensor([3.0, 0.0]), tensor([-1.0, 0.0])
    check(apply("karcher", None, [one, other], fingerprints=("b", "a")), [-2.0, 0.0])
    check(apply("karcher", None, [other, one], fingerprints=("a", "b")), [-2.0, 0.0])


@pytest.mark.parametrize("parameter", [{"max_iter": 1}, {"tol": 0.05}])
def test_karcher_stops_after_max_iter_steps_or_at_a_step_below_tol(parameter: dict[str, Scalar]) -> None:
    generator = torch.Generator().manual_seed(2)
    models = [torch.randn(3, dtype=torch.float64, generator=generator) for _ in range(5)]
    arrays = [array(model) for model in models]
    expected = reference_mixtures.karcher(
        arrays, steps=int(parameter.get("max_iter", 10)), tolerance=float(parameter.get("tol", 1e-5))
    )
    found = apply("karcher", None, models, parameter)
    check(found, expected.tolist())
    assert not found.allclose(apply("karcher", None, models), atol=1e-4)


@pytest.mark.parametrize(
    ("experts", "expected"),
    [
        ([[1.0, 0.0], [1.0, 1.0]], [0.828427, 0.414214]),
        ([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]),
        ([[1.0, 2.0], [1.0, 2.0]], [1.0, 2.0]),
    ],
)
def test_model_stock_goes_as_far_as_the_angle_says(experts: list[list[float]], expected: list[float]) -> None:
    check(apply("model_stock", tensor([0.0, 0.0]), [tensor(expert) for expert in experts]), expected)


def test_model_stock_stays_at_the_base_where_others_leave_it_backwards() -> None:
    base, opposed = tensor([0.0, 0.0]), [tensor([1.0, 0.0]), tensor([-0.5, 0.75**0.5])]  # cosine -1/2: t = -2
    check(apply("model_stock", base, opposed), [0.0, 0.0])
    check(apply("model_stock", base, opposed, {"clamp": False}), [-0.5, -(0.75**0.5)])


@pytest.mark.parametrize("clamp", [True, False])
def test_model_stock_is_the_base_where_directions_cancel(clamp: bool) -> None:
    base = tensor([1.0, 1.0])
    check(apply("model_stock", base, [tensor([2.0, 1.0]), tensor([0.5, 1.0])], {"clamp": clamp}), [1.0, 1.0])


def test_model_stock_measures_angles_of_small_task_vectors_too() -> None:
    # a lower limit of 1e-6 for the product of lengths, as elsewhere, would make these almost orthogonal
    base, small = tensor([0.0, 0.0]), [tensor([1e-5, 0.0]), tensor([1e-5, 1e-5])]
    torch.testing.assert_close(
        apply("model_stock", base, small), 1e-5 * tensor([0.8284271247461903, 0.41421356237309515])
    )


def test_model_stock_can_give_every_row_an_angle_of_its_own() -> None:
    experts = [tensor([[1.0, 0.0], [1.0, 0.0]]), tensor([[1.0, 1.0], [0.0, 1.0]])]
    check(
        apply("model_stock", torch.zeros(2, 2, dtype=torch.float64), experts, {"filter_wise": True}),
        [[0.828427, 0.414214], [0.0, 0.0]],
    )


W0, W1, W2 = ([[3.0, 0], [4, 1]], [[3.0, 1], [4, 1]], [[6.0, 0], [8, 2]])


def test_widen_weighs_columns_by_the_ranks_of_length_and_direction() -> None:
    check(apply("widen", tensor(W0), [tensor(W1), tensor(W2)]), [[5.25, 1.0], [7.0, 1.68877]])


def test_widen_takes_the_rows_of_an_embedding_for_columns() -> None:
    base, *experts = (tensor(matrix).T.contiguous() for matrix in (W0, W1, W2))
    method, given = get("widen"), parameters("widen", 2, {}, {})

    def merged(name: str) -> Tensor:
        return method.apply(TensorContext(name, 0.0, 1, 0, ("a", "b")), base, experts, given)

    check(merged("model.embed_tokens.weight"), [[5.25, 7.0], [1.0, 1.68877]])
    for name in ("lm_head.weight", "embed_out.weight", "model.layers.0.mlp.up_proj.weight"):
        assert not merged(name).allclose(tensor([[5.25, 7.0], [1.0, 1.68877]]), atol=1e-5)


def test_widen_ranks_equal_columns_by_their_index() -> None:
    base = torch.ones(3, 4, dtype=torch.float64)
    weight = (apply("widen", base, [base + 1, base + 1]) - base)[0] / 2
    full = (weight - 1).abs() < 1e-12
    assert full.tolist() == [False, False, True, True]


def test_widen_ranks_columns_that_differ_by_rounding_alone_by_their_index() -> None:
    # all columns have one length, summed in another order, and none turns
    generator = torch.Generator().manual_seed(0)
    column = torch.rand(9, dtype=torch.float64, generator=generator)
    base = torch.stack([column[torch.randperm(9, generator=generator)] for _ in range(4)], dim=1)
    found = apply("widen", base, [base * 1.1], {"s": 5.0})
    check((found - base) / (base * 0.1), [[1.0, 1.0, 5.0, 5.0]] * 9)


def test_widen_sees_small_turns_beside_a_large_base() -> None:
    base = torch.full((2, 3), 1.0, dtype=torch.float32)
    turned = base.clone()
    turned[0] += torch.tensor([3e-5, 1e-5, 2e-5])
    turned[1] -= torch.tensor([3e-5, 1e-5, 2e-5])  # cosines differ from 1 by less than 1e-9
    still = base.clone()
    found = apply("widen", base, [turned, still], {"s": 5.0})
    assert ((found - base)[0] / (turned - base)[0] > 2).tolist() == [True, False, False]


def test_widen_scores_a_vector_entry_by_entry() -> None:
    base = tensor([0.0, 0.0])
    found = apply("widen", base, [tensor([1.0, 3.0]), tensor([-2.0, 1.0])])
    low, high = 1 / (1 + np.e), 1 / (1 + np.e**-2)
    check(found, [1.0 * low - 2.0, 3.0 + 1.0 * (1 - high)])


def test_nearswap_moves_at_most_t() -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    check(apply("nearswap", zero, [tensor([0.05, 0.2, -1.0])], {"t": 0.1}), [0.05, 0.1, -0.1])


def test_arcee_fusion_takes_over_what_stands_out() -> None:
    base = torch.zeros(2, 8, dtype=torch.float64)
    model = base + 0.01 * torch.arange(16, dtype=torch.float64).reshape(2, 8)
    model[1, 7] = 3.0
    found = apply("arcee_fusion", base, [model])
    taken = found != base
    assert found[taken].equal(model[taken])
    assert taken[1, 7]
    assert not taken[0].any()


def test_arcee_fusion_of_few_changes_takes_them_all() -> None:
    base = torch.zeros(2, 8, dtype=torch.float64)
    model = base.clone()
    model[0, :2] = tensor([1e-3, 2.0])
    assert apply("arcee_fusion", base, [model]).equal(model)
