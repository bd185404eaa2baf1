"""What holds for the methods that sparsify, whatever the numbers; one that is exempt is not listed, or shown to be."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evomerge.recipe.holes import Scalar
from evomerge.strategies.merge.registry import get
from tests.strategies.merge import reference, reference_sparse
from tests.strategies.merge.reference import Array
from tests.strategies.merge.support import apply, array
from tests.strategies.merge.test_formulas import Example, examples

Settings = tuple[Mapping[str, Scalar], Mapping[str, float]]
DENSE: dict[str, Settings] = {
    "breadcrumbs": ({}, {"density": 1.0}),
    "breadcrumbs_ties": ({}, {"density": 1.0}),
    "della": ({}, {"density": 1.0, "epsilon": 0.0}),
    "della_linear": ({}, {"density": 1.0, "epsilon": 0.0}),
    "sce": ({"select_topk": 1.0}, {}),
    "consensus": ({"least_models": 0}, {}),
    "emr": ({}, {}),
    "magmax": ({}, {}),
    "ram": ({"epsilon": 0.0}, {}),
    "ram_plus": ({"epsilon": 0.0}, {}),
}
"""Settings by which nothing is dropped: the merge's, and those of each input."""

SPARSE: dict[str, Settings] = {
    "ties": ({"scope": "model"}, {"density": 0.4}),
    "breadcrumbs": ({}, {"density": 0.6, "gamma": 0.2}),
    "breadcrumbs_ties": ({}, {"density": 0.6, "gamma": 0.2}),
    "della": ({}, {"density": 0.5, "epsilon": 0.25}),
    "della_linear": ({"rescale": "l1"}, {"density": 0.5, "epsilon": 0.25}),
    "sce": ({"select_topk": 0.5}, {}),
    "consensus": ({"least_models": 2}, {"threshold": 0.25}),
    "emr": ({}, {}),
    "magmax": ({}, {}),
    "ram": ({"epsilon": 0.0}, {}),
    "ram_plus": ({"epsilon": 0.0}, {}),
}
"""Settings by which something is."""

PCB: dict[str, Settings] = {"pcb": ({"scope": "model"}, {"density": 0.4})}
EVERY = {**SPARSE, **PCB}


def merged(name: str, base: Tensor, experts: Sequence[Tensor], settings: Settings, **more: Sequence[float]) -> Tensor:
    merge, each = settings
    own = {key: (value,) * len(experts) for key, value in each.items()}
    return apply(name, base, experts, merge, **own, **more)  # pyright: ignore[reportArgumentType]  # no names among them


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", DENSE)
@given(example=examples())
def test_one_model_alone_is_itself(name: str, example: Example) -> None:
    close(merged(name, example.base, example.experts[:1], DENSE[name]), example.experts[0])


@pytest.mark.parametrize("name", ["della", "sce", "emr", "magmax", "ram", "ram_plus"])
@given(example=examples())
def test_averaging_equal_models_gives_that_model(name: str, example: Example) -> None:
    experts = [example.experts[0].clone() for _ in range(3)]
    close(merged(name, example.base, experts, DENSE[name]), example.experts[0])


@pytest.mark.parametrize("name", ["breadcrumbs", "breadcrumbs_ties", "della_linear", "consensus"])
@given(example=examples())
def test_summing_equal_models_adds_the_task_vector_as_often(name: str, example: Example) -> None:
    experts = [example.experts[0].clone() for _ in range(3)]
    expected = example.base + 3 * (example.experts[0] - example.base)
    close(merged(name, example.base, experts, DENSE[name]), expected)


@pytest.mark.parametrize("name", EVERY)
@given(example=examples(least=2), data=st.data())
def test_order_of_models_changes_nothing(name: str, example: Example, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(example.experts))))
    weighed = any(parameter.name == "weight" for parameter in get(name).parameters)

    def of(order: Sequence[int]) -> Tensor:
        return apply(
            name,
            example.base,
            [example.experts[index] for index in order],
            EVERY[name][0],
            seed=example.seed,
            fingerprints=[example.names[index] for index in order],
            weight=[abs(example.weights[index]) for index in order] if weighed else None,
            **{key: (value,) * len(order) for key, value in EVERY[name][1].items()},
        )

    close(of(order), of(range(len(order))))


@pytest.mark.parametrize("name", EVERY)
@given(example=examples())
def test_experts_without_differences_give_exactly_the_base(name: str, example: Example) -> None:
    experts = [example.base.clone() for _ in example.experts]
    assert merged(name, example.base, experts, EVERY[name]).equal(example.base)
    assert apply(name, example.base, experts).equal(example.base)


@pytest.mark.parametrize("name", SPARSE)
@given(example=examples(), factor=st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_task_vectors_scaled_together_scale_the_result(name: str, example: Example, factor: float) -> None:
    zero = torch.zeros_like(example.base)
    scaled = merged(name, zero, [expert * factor for expert in example.experts], SPARSE[name])
    close(scaled, factor * merged(name, zero, example.experts, SPARSE[name]))


def test_pcb_is_not_homogeneous() -> None:
    rows = torch.randn(3, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    base = torch.zeros(200, dtype=torch.float64)
    small, large = (merged("pcb", base, list(rows * factor), PCB["pcb"]) for factor in (1.0, 16.0))
    assert not torch.allclose(16 * small, large)


SHAPES = [(), (0,), (1,), (5,), (0, 3), (3, 0), (1, 1), (4, 1), (2, 3, 2)]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("size", [1e-40, 1e-3, 1e30])
@pytest.mark.parametrize("models", [1, 2, 20])
def test_any_shape_size_and_number_of_models_is_merged_without_infinities(name: str, size: float, models: int) -> None:
    generator = torch.Generator().manual_seed(4)
    for shape in SHAPES:
        base, *experts = (size * torch.randn(shape, generator=generator) for _ in range(models + 1))
        for settings in (EVERY[name], ({}, {})):
            found = merged(name, base, experts, settings)
            assert found.shape == shape
            assert found.dtype == torch.float32
            assert bool(found.isfinite().all())


@pytest.mark.parametrize("name", DENSE)
def test_denormal_differences_are_not_lost(name: str) -> None:
    expert = torch.tensor([1e-40, -3e-42, 0.0, 2e-39])
    assert merged(name, torch.zeros(4), [expert], DENSE[name]).equal(expert)


@pytest.mark.parametrize("name", EVERY)
def test_transposed_tensors_merge_as_their_copies_do(name: str) -> None:
    generator = torch.Generator().manual_seed(2)
    base, *experts = (torch.randn(6, 9, generator=generator).t() for _ in range(3))
    copied = merged(name, base.contiguous(), [expert.contiguous() for expert in experts], EVERY[name])
    assert merged(name, base, experts, EVERY[name]).equal(copied)


@pytest.mark.parametrize("name", EVERY)
def test_threads_change_nothing(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    base, *experts = (torch.randn(700, 300, generator=generator) for _ in range(3))
    before = torch.get_num_threads()
    try:
        results: list[Tensor] = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(merged(name, base, experts, EVERY[name]))
    finally:
        torch.set_num_threads(before)
    assert results[0].equal(results[1])


ONES = (1.0,) * 3
DEFAULTS: dict[str, Callable[[Array, list[Array]], Array]] = {
    "breadcrumbs": lambda base, experts: reference_sparse.breadcrumbs(
        base, experts, ONES, (0.9,) * 3, gammas=(0.01,) * 3
    ),
    "breadcrumbs_ties": lambda base, experts: reference_sparse.breadcrumbs(
        base, experts, ONES, (0.9,) * 3, gammas=(0.01,) * 3, merge_func="sum"
    ),
    "della": lambda base, experts: reference_sparse.della(
        base, experts, ONES, (0.7,) * 3, epsilon=0.15, rescale="unbiased", seed=0, merge_func="mean"
    ),
    "della_linear": lambda base, experts: reference_sparse.della(
        base, experts, ONES, (0.7,) * 3, epsilon=0.15, rescale="unbiased", seed=0, merge_func=None
    ),
    "sce": lambda base, experts: reference_sparse.sce(base, experts, 1.0),
    "pcb": lambda base, experts: reference_sparse.pcb([base], [[expert] for expert in experts], ONES, (0.1,) * 3, 1.2)[
        0
    ],
    "consensus": lambda base, experts: reference_sparse.tall(base, experts, ONES, (0.4,) * 3, 2),
    "emr": lambda base, experts: reference.ties(base, experts, ONES, ONES, merge_func="max"),
    "magmax": lambda base, experts: reference_sparse.magmax(base, experts, ONES),
    "ram": lambda base, experts: reference_sparse.ram(base, experts, 1e-5),
    "ram_plus": lambda base, experts: reference_sparse.ram(base, experts, 1e-5, 0.1, 0.2),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_float32_with_defaults_is_the_reference_rounded(name: str) -> None:
    generator = torch.Generator().manual_seed(5)
    base = torch.randint(-8, 9, (20, 30), generator=generator) / 8  # differences of float32 to it are exact
    experts = [base + torch.randint(-5000, 5001, (20, 30), generator=generator) / 2**18 for _ in range(3)]
    found = apply(name, base, experts)
    assert found.dtype == torch.float32
    expected = DEFAULTS[name](array(base), [array(expert) for expert in experts])
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=1e-6, atol=1e-6)
