"""What holds for every method whatever the numbers, and where a method is exempt: the name of the test says so."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from tests.strategies.merge.support import apply, tensor
from tests.strategies.merge.test_formulas import Example, examples

SPARSE = ["ties", "dare_linear", "dare_ties"]
AROUND_A_BASE = ["task_arithmetic", *SPARSE]
FOR_ANY_NUMBER = ["linear", *AROUND_A_BASE]
every = pytest.mark.parametrize("name", FOR_ANY_NUMBER)


def dense(name: str, base: Tensor, experts: Sequence[Tensor]) -> Tensor:
    return apply(name, base, experts, density=(1.0,) * len(experts) if name in SPARSE else None)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@every
@given(example=examples())
def test_one_model_alone_is_itself(name: str, example: Example) -> None:
    close(dense(name, example.base, example.experts[:1]), example.experts[0])


@given(example=examples())
def test_slerp_reaches_both_ends(example: Example) -> None:
    close(apply("slerp", example.base, example.experts[:1], {"t": 0.0}), example.base)
    close(apply("slerp", example.base, example.experts[:1], {"t": 1.0}), example.experts[0])


@pytest.mark.parametrize("name", ["linear", "ties"])
@given(example=examples())
def test_averaging_equal_models_gives_that_model(name: str, example: Example) -> None:
    experts = [example.experts[0].clone() for _ in range(3)]
    close(dense(name, example.base, experts), example.experts[0])


@pytest.mark.parametrize("name", ["task_arithmetic", "dare_linear", "dare_ties"])
@given(example=examples())
def test_summing_equal_models_adds_the_task_vector_as_often(name: str, example: Example) -> None:
    experts = [example.experts[0].clone() for _ in range(3)]
    close(dense(name, example.base, experts), example.base + 3 * (example.experts[0] - example.base))


@given(example=examples(), t=st.floats(0, 1))
def test_slerp_between_equal_models_gives_that_model(example: Example, t: float) -> None:
    close(apply("slerp", None, [example.base, example.base.clone()], {"t": t}), example.base)


@every
@given(example=examples(least=2), data=st.data())
def test_order_of_models_changes_nothing(name: str, example: Example, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(example.experts))))
    weights = tuple(map(abs, example.weights))

    def merged(order: list[int]) -> Tensor:
        return apply(
            name,
            example.base,
            [example.experts[index] for index in order],
            seed=example.seed,
            fingerprints=[example.names[index] for index in order],
            weight=[weights[index] for index in order],
            density=[example.densities[index] for index in order] if name in SPARSE else None,
        )

    close(merged(order), merged(list(range(len(example.experts)))))


def test_a_vote_decided_by_rounding_does_not_depend_on_the_order() -> None:
    base, experts = torch.zeros(1, dtype=torch.float64), [tensor([value]) for value in (0.7, -0.6, -0.1)]
    assert 0.7 - 0.6 - 0.1 < 0 <= -0.1 - 0.6 + 0.7
    names = ("a", "b", "c")
    found = {
        float(
            apply(
                "ties",
                base,
                [experts[index] for index in order],
                fingerprints=[names[index] for index in order],
                density=(1.0,) * 3,
            )
        )
        for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0])
    }
    assert len(found) == 1


@pytest.mark.parametrize("name", AROUND_A_BASE)
@given(example=examples())
def test_experts_without_differences_give_exactly_the_base(name: str, example: Example) -> None:
    experts = [example.base.clone() for _ in example.experts]
    density = example.densities if name in SPARSE else None
    found = apply(name, example.base, experts, {"scale": example.scale}, weight=example.weights, density=density)
    assert found.equal(example.base)


@pytest.mark.parametrize("name", AROUND_A_BASE)
@given(example=examples(), factor=st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_task_vectors_scaled_together_scale_the_result(name: str, example: Example, factor: float) -> None:
    zero = torch.zeros_like(example.base)
    density = example.densities if name in SPARSE else None

    def merged(factor: float) -> Tensor:
        experts = [expert * factor for expert in example.experts]
        return apply(name, zero, experts, seed=example.seed, weight=example.weights, density=density)

    close(merged(factor), factor * merged(1.0))


@given(example=examples(), factor=st.sampled_from([0.25, 0.5, 2.0]), t=st.floats(0, 1))
def test_slerp_scales_with_its_ends(example: Example, factor: float, t: float) -> None:
    assume(float(example.base.norm()) > 1e-3)
    start, end = example.base, example.experts[0]
    whole = apply("slerp", start, [end], {"t": t})
    close(apply("slerp", factor * start, [factor * end], {"t": t}), factor * whole)


@pytest.mark.parametrize("name", SPARSE)
def test_density_of_one_expert_leaves_the_others_entries_alone(name: str) -> None:
    base = torch.zeros(300, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    experts = [torch.rand(300, dtype=torch.float64, generator=generator) + 0.1 for _ in range(2)]
    alone = apply(name, base, experts[:1], density=(0.5,))
    touched = {float(d): apply(name, base, experts, density=(0.5, float(d))) != 0 for d in (0.1, 0.6)}
    assert all(bool((mask | (alone == 0)).all()) for mask in touched.values())


@pytest.mark.parametrize("name", [*FOR_ANY_NUMBER, "slerp"])
def test_transposed_tensors_merge_as_their_copies_do(name: str) -> None:
    generator = torch.Generator().manual_seed(2)
    base, first, second = (torch.randn(6, 9, generator=generator).t() for _ in range(3))
    experts = [first] if name == "slerp" else [first, second]
    copied = apply(name, base.contiguous(), [expert.contiguous() for expert in experts])
    assert apply(name, base, experts).equal(copied)


@pytest.mark.parametrize("name", [*FOR_ANY_NUMBER, "slerp"])
def test_threads_change_nothing(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    base, first, second = (torch.randn(700, 300, generator=generator) for _ in range(3))
    experts = [first] if name == "slerp" else [first, second]
    before = torch.get_num_threads()
    try:
        results: list[Tensor] = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(apply(name, base, experts))
    finally:
        torch.set_num_threads(before)
    assert results[0].equal(results[1])
