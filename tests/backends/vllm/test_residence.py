"""Where models stay, and that they are merged there into what the store makes of them."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.backends.vllm.residence import BATCH, Place, Residence, Where, bytes_of, plan
from evomerge.backends.weights.checkpoint import Checkpoint
from evomerge.backends.weights.statistics import Statistics
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import CandidateError, ConfigError
from evomerge.recipe.tree import Input, Merge, Result, Slice, Source, Stack, WeightRecipe, sources
from tests.support.models import save_adapter, save_model

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not TRITON, reason="Triton is not installed")

SIZES = st.dictionaries(st.text(max_size=3), st.integers(0, 1 << 40), max_size=6)
BYTES = st.integers(0, 1 << 42)


@given(SIZES, BYTES, BYTES)
def test_auto_takes_the_first_place_with_room(sizes: Mapping[str, int], gpu: int, host: int) -> None:
    found = plan(sizes, gpu, host, "auto")
    possible = [where for where in (wished(sizes, gpu, host, "gpu"), wished(sizes, gpu, host, "pinned")) if where]
    assert found == next(iter(possible), plan(sizes, gpu, host, "files"))


@given(SIZES, BYTES, BYTES)
def test_what_is_taken_is_never_more_than_what_is_free(sizes: Mapping[str, int], gpu: int, host: int) -> None:
    found = plan(sizes, gpu, host, "auto")
    assert found.models == sum(sizes.values())
    if found.place == "gpu":
        assert found.models + found.work < gpu
    if found.place == "pinned":
        assert (found.models <= host, found.work < gpu) == (True, True)
    if found.place == "files":
        assert found.work == 0


@given(SIZES, BYTES, BYTES, st.integers(0, 1 << 40))
def test_more_room_never_takes_models_farther_away(sizes: Mapping[str, int], gpu: int, host: int, more: int) -> None:
    order = ("gpu", "pinned", "files")
    now, then = plan(sizes, gpu, host, "auto"), plan(sizes, gpu + more, host + more, "auto")
    assert order.index(then.place) <= order.index(now.place)


@given(SIZES, BYTES)
def test_without_a_gpu_files_stay_files(sizes: Mapping[str, int], host: int) -> None:
    for wish in ("auto", "files"):
        assert plan(sizes, None, host, wish) == Where("files", sum(sizes.values()), 0)


@pytest.mark.parametrize("wish", ["gpu", "pinned"])
def test_a_place_that_there_is_not_is_refused(wish: Place) -> None:
    with pytest.raises(ConfigError, match=f"experts: {wish} needs an engine on a GPU"):
        plan({"a": 1}, None, 1 << 40, wish)


def test_a_place_without_room_is_refused_with_the_sizes() -> None:
    with pytest.raises(ConfigError, match=r"gpu would take 15\.0 GiB of 8\.0 GiB that are free on the GPU"):
        plan({"a": 14 << 30}, 8 << 30, 1 << 40, "gpu")
    with pytest.raises(ConfigError, match=r"pinned would take 14\.0 GiB of 2\.0 GiB that are free in memory"):
        plan({"a": 14 << 30}, 8 << 30, 2 << 30, "pinned")


def wished(sizes: Mapping[str, int], gpu: int, host: int, wish: Place) -> Where | None:
    try:
        return plan(sizes, gpu, host, wish)
    except ConfigError:
        return None


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "one", "two")):
        save_model(folder / name, seed)
        save_model(folder / f"tied-{name}", seed + 3, tie_word_embeddings=True)
    save_adapter(folder / "adapter", folder / "base", 9)
    return folder


def merge(method: str, *, base: str | None = "base", names: tuple[str, ...] = ("one", "two"), **params: float) -> Merge:
    inputs = tuple(Input(Source(name), dict(params)) for name in names)
    return Merge(method, inputs, base=None if base is None else Source(base), seed=3)


RECIPES: dict[str, WeightRecipe] = {
    "a model": Source("one"),
    "a weighted sum": merge("task_arithmetic", weight=0.4),
    "a sum without base": merge("linear", base=None, weight=0.5),
    "trimmed by rank": merge("ties", weight=0.7, density=0.4),
    "dropped at random": merge("dare_ties", weight=0.7, density=0.4),
    "a mixture": merge("slerp", base=None, names=("one", "two")),
    "tied embeddings": merge("task_arithmetic", base="tied-base", names=("tied-one", "tied-two"), weight=0.4),
    "another dtype": Merge(
        "task_arithmetic", (Input(Source("one"), {"weight": 0.4}),), base=Source("base"), result=Result("float32")
    ),
}


def held(store: WeightStore, recipe: WeightRecipe, place: Place) -> Residence:
    residence = Residence(place, torch.device("cpu"), Statistics())
    for source in sources(recipe):
        model = store.opened(source)
        if isinstance(model, Checkpoint):
            residence.take(model)
    return residence


@needs_triton
@pytest.mark.parametrize("place", ["gpu", "pinned"])
@pytest.mark.parametrize("name", RECIPES)
def test_what_is_merged_there_is_what_the_store_merges(models: Path, name: str, place: Place) -> None:
    store = WeightStore()
    recipe = store.resolve(RECIPES[name], models)
    residence, planned, outline = held(store, recipe, place), store.planned(recipe), store.outline(recipe)
    assert residence.merges(planned)
    expected = list(store.tensors(recipe))
    for batch in (1, 5000, BATCH):  # a tensor at a time, some, all
        found = list(residence.tensors(planned, outline, batch))
        assert [name for name, _ in found] == [name for name, _ in expected]
        for (_, ours), (_, theirs) in zip(found, expected, strict=True):
            assert ours.dtype == theirs.dtype
            if INTERPRETED:
                assert torch.equal(ours, theirs)
            else:  # the formula, whose sums round in another order
                torch.testing.assert_close(ours, theirs, rtol=2**-7, atol=1e-5)


@needs_triton
def test_what_was_merged_leaves_the_models_as_they_were(models: Path) -> None:
    store = WeightStore()
    recipe = store.resolve(RECIPES["trimmed by rank"], models)
    residence, planned, outline = held(store, recipe, "gpu"), store.planned(recipe), store.outline(recipe)
    first = {name: tensor.clone() for name, tensor in residence.tensors(planned, outline)}
    assert all(torch.equal(first[name], tensor) for name, tensor in residence.tensors(planned, outline))


@needs_triton
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's numpy warns of what is meant to happen
def test_a_merge_that_overflows_names_the_tensor(models: Path) -> None:
    store = WeightStore()
    recipe = store.resolve(merge("task_arithmetic", weight=3e38), models)
    residence = held(store, recipe, "gpu")
    with pytest.raises(CandidateError, match=r"the merged .* overflows bfloat16"):
        list(residence.tensors(store.planned(recipe), store.outline(recipe), 5000))


@pytest.mark.parametrize(
    "recipe",
    [
        merge("della", weight=0.5, density=0.5),
        merge("task_arithmetic", names=("adapter",), weight=0.5),
        Merge("linear", (Input(merge("ties", weight=0.5, density=0.5)), Input(Source("one")))),
        Stack((Slice(Source("one"), (0, 1)), Slice(Source("two"), (0, 1)))),
    ],
    ids=["a method without a kernel", "adapters", "a merge of merges", "a stack"],
)
def test_other_recipes_are_left_to_the_store(models: Path, recipe: WeightRecipe) -> None:
    store = WeightStore()
    resolved = store.resolve(recipe, models)
    assert not held(store, resolved, "gpu").merges(store.planned(resolved))


def test_files_are_left_to_the_store(models: Path) -> None:
    store = WeightStore()
    recipe = store.resolve(RECIPES["a weighted sum"], models)
    assert not held(store, recipe, "files").merges(store.planned(recipe))


def test_a_tied_head_counts_once(models: Path) -> None:
    model = WeightStore().opened(Source(str(models / "tied-base")))
    assert isinstance(model, Checkpoint)
    assert bytes_of(model) == sum(2 * stored.elements for stored in model.stored.values())


@needs_triton
@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_kernels_write_the_same_bits_as_the_store() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST"):
        environment.pop(name, None)
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
