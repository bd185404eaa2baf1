"""The methods that sparsify against their float64 references, also over tied, zero, single and empty tensors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies.merge import reference, reference_sparse
from tests.strategies.merge.support import apply
from tests.strategies.merge.test_formulas import Example, agree, examples

FUNCS = [None, "mean", "sum", "max"]
GAMMAS = st.lists(st.sampled_from([0.0, 0.01, 0.1, 0.3, 1.0]), min_size=4, max_size=4)


@pytest.mark.parametrize("merge_func", FUNCS)
@given(example=examples(), gammas=GAMMAS)
def test_breadcrumbs(merge_func: str | None, example: Example, gammas: list[float]) -> None:
    base, experts = example.arrays
    own = gammas[: len(experts)]
    name, merge = ("breadcrumbs", {}) if merge_func is None else ("breadcrumbs_ties", {"merge_func": merge_func})
    found = apply(
        name,
        example.base,
        example.experts,
        merge,
        weight=example.weights,
        density=example.densities,
        gamma=own,
    )
    agree(
        found,
        reference_sparse.breadcrumbs(
            base, experts, example.weights, example.densities, gammas=own, merge_func=merge_func
        ),
    )


@pytest.mark.parametrize("merge_func", FUNCS)
@given(example=examples(), rescale=st.sampled_from(["unbiased", "l1"]))
def test_della(merge_func: str | None, example: Example, rescale: str) -> None:
    base, experts = example.arrays
    count, densities = len(experts), tuple(min(max(density, 0.2), 0.8) for density in example.densities)
    name, merge = ("della_linear", {}) if merge_func is None else ("della", {"merge_func": merge_func})
    found = apply(
        name,
        example.base,
        example.experts,
        {"rescale": rescale, **merge},
        seed=example.seed,
        weight=example.weights,
        density=densities,
        epsilon=(0.125,) * count,
    )
    expected = reference_sparse.della(
        base,
        experts,
        example.weights,
        densities,
        epsilon=0.125,
        rescale=rescale,
        seed=example.seed,
        merge_func=merge_func,
    )
    agree(found, expected)


@given(example=examples(), select_topk=st.sampled_from([0.0, 0.01, 0.3, 0.67, 0.9, 1.0]))
def test_sce(example: Example, select_topk: float) -> None:
    base, experts = example.arrays
    found = apply("sce", example.base, example.experts, {"select_topk": select_topk})
    agree(found, reference_sparse.sce(base, experts, select_topk))


@given(
    example=examples(),
    thresholds=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=4, max_size=4),
    least=st.integers(0, 2),
)
def test_consensus(example: Example, thresholds: list[float], least: int) -> None:
    base, experts = example.arrays
    own = thresholds[: len(experts)]
    found = apply(
        "consensus",
        example.base,
        example.experts,
        {"least_models": least},
        weight=example.weights,
        threshold=own,
    )
    agree(found, reference_sparse.tall(base, experts, example.weights, own, least))


@given(example=examples())
def test_emr(example: Example) -> None:
    base, experts = example.arrays
    found = apply("emr", example.base, example.experts, {"scale": example.scale}, weight=example.weights)
    expected = reference.ties(
        base, experts, example.weights, (1.0,) * len(experts), scale=example.scale, merge_func="max"
    )
    agree(found, expected)


@given(example=examples())
def test_magmax(example: Example) -> None:
    base, experts = example.arrays
    found = apply("magmax", example.base, example.experts, weight=example.weights)
    agree(found, reference_sparse.magmax(base, experts, example.weights))


@given(example=examples(), epsilon=st.sampled_from([0.0, 1e-5, 0.25, 1.0]), gain=st.sampled_from([0.0, 0.1, 0.5]))
def test_ram(example: Example, epsilon: float, gain: float) -> None:
    base, experts = example.arrays
    agree(
        apply("ram", example.base, example.experts, {"epsilon": epsilon}), reference_sparse.ram(base, experts, epsilon)
    )
    found = apply("ram_plus", example.base, example.experts, {"epsilon": epsilon, "gain": gain, "limit": 0.75})
    agree(found, reference_sparse.ram(base, experts, epsilon, gain, 0.75))
