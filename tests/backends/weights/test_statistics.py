"""What does not depend on parameters is found out once a study, whatever candidates come."""

import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evomerge.backends.weights import models
from evomerge.backends.weights.kernels import ranks, scratch
from evomerge.backends.weights.kernels.scratch import LARGE, cost_of
from evomerge.backends.weights.statistics import Statistics
from evomerge.backends.weights.store import WeightStore
from evomerge.recipe.holes import Scalar
from evomerge.recipe.tree import Input, Merge, Source
from evomerge.strategies.merge.protocol import Method, Parameter
from evomerge.strategies.merge.registry import methods
from tests.backends.weights.family import Zoo

KINDS = {
    "arcee_fusion": {"importance"},
    "breadcrumbs": {"histogram"},
    "breadcrumbs_ties": {"histogram"},
    "della": {"ranks"},
    "della_linear": {"ranks"},
    "pcb": {"whole", "running"},
    "sce": {"variance"},
    "ties": {"histogram"},
}
"""What methods find out; those whose weights follow from inner products keep these, and others nothing."""


@pytest.fixture(scope="module")
def folders(zoo: Zoo) -> list[Path]:
    return [zoo.model(f"short{seed}", seed=seed, dtype=torch.bfloat16) for seed in range(4)]


@pytest.fixture
def statistics(monkeypatch: pytest.MonkeyPatch) -> Statistics:
    kept = Statistics()
    monkeypatch.setattr(models, "Statistics", lambda: kept)
    return kept


def candidates(method: Method, folders: list[Path]) -> Iterator[Merge]:
    """The same models again and again, with numbers of their own."""
    base, *experts = (Source(str(folder)) for folder in folders)
    most = method.needs.inputs[1] or len(experts)
    count = most - 1 if method.needs.base == "counted" else most
    dice = np.random.default_rng(0)

    def values(of: str) -> dict[str, Scalar]:
        return {one.name: drawn(one, dice) for one in method.parameters if one.of == of}

    while True:
        inputs = tuple(Input(expert, values("input")) for expert in experts[:count])
        yield Merge(
            method.name, inputs, None if method.needs.base == "unused" else base, values("merge"), seed=len(inputs)
        )


def drawn(parameter: Parameter, dice: np.random.Generator) -> Scalar:
    if parameter.low is None or parameter.high is None:
        return parameter.default
    return parameter.low + (parameter.high - parameter.low) * dice.uniform(0.25, 0.75)


@pytest.mark.parametrize("name", methods())
def test_new_numbers_need_no_new_statistics(name: str, folders: list[Path], statistics: Statistics) -> None:
    method = methods()[name]
    store = WeightStore()
    recipes = candidates(method, folders)
    for _ in range(3):
        recipe = store.resolve(next(recipes), Path("/"))
        before = dict(statistics.computed)
        merged = dict(store.tensors(recipe))
        assert len(merged) == len(store.outline(recipe))
        if before:
            assert statistics.computed == before
    found = {f"products of {method.mixture.of}"} if method.mixture else KINDS.get(name, set())
    assert {kind.split(" by ")[0] for kind in statistics.computed} == found


@pytest.mark.parametrize("name", ["ties", "breadcrumbs", "sce", "della", "pcb"])
def test_statistics_do_not_depend_on_the_order_of_models(
    name: str, folders: list[Path], statistics: Statistics
) -> None:
    store = WeightStore()
    recipe = next(candidates(methods()[name], folders))
    recipe = replace(recipe, params={key: value for key, value in recipe.params.items() if key != "scope"})
    tensors = dict(store.tensors(store.resolve(recipe, Path("/"))))
    before = dict(statistics.computed)
    turned = dict(store.tensors(store.resolve(replace(recipe, inputs=recipe.inputs[::-1]), Path("/"))))
    assert all(torch.equal(tensors[key], turned[key]) for key in tensors)
    assert name == "pcb" or statistics.computed == before


@pytest.mark.parametrize(("rescale", "few"), [("l1", 1 << 25), ("l1", 0), ("unbiased", 0)])
def test_a_single_merge_keeps_no_ranks_and_changes_no_bit(
    rescale: str, few: int, folders: list[Path], statistics: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "UNIT", 1 << 10)
    monkeypatch.setattr(ranks, "_FEW", few)
    store = WeightStore()
    recipe = next(candidates(methods()["della"], folders))
    recipe = store.resolve(replace(recipe, params={**recipe.params, "rescale": rescale}), Path("/"))
    once = {key: raw.tensor() for key, raw in store.raws(recipe, lasting=False)}
    assert not statistics.computed
    again = dict(store.tensors(recipe))
    assert set(statistics.computed) == {"ranks"}
    assert all(torch.equal(once[key], again[key]) for key in again)


def test_ranks_of_models_that_never_come_again_are_forgotten() -> None:
    """An input that is a merge with genes of its own is another model in every candidate."""
    statistics = Statistics(limit=1 << 20)
    arrays = [
        weakref.ref(statistics.get("ranks", seed, lambda: statistics.scratch.room(1 << 21, "uint16"), cost_of))
        for seed in range(20)
    ]
    assert sum(array() is not None for array in arrays) == 4


def test_what_was_not_asked_for_the_longest_is_forgotten_first() -> None:
    statistics = Statistics(limit=20)
    for key in ("a", "b", "a", "c", "a", "b"):
        assert statistics.get("text", key, lambda key=key: key * 2, lambda _: 10) == key * 2
    assert statistics.computed["text"] == 4  # b again


def test_large_arrays_are_kept_in_files_and_small_ones_in_memory() -> None:
    room = Statistics().scratch.room
    small, first, second = room(LARGE // 4, "uint16"), room(LARGE, "uint16"), room(LARGE, "uint32")
    assert cost_of(small) == small.nbytes
    assert [16 * cost_of(array) for array in (first, second)] == [first.nbytes, second.nbytes]
    first[:], second[:] = 7, 8
    assert set(first) == {7}
    assert set(second) == {8}


def test_a_full_disk_leaves_arrays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scratch, "_mapped", full)
    array = scratch.Scratch().room(scratch.LARGE, "uint16")
    assert scratch.cost_of(array) == array.nbytes
