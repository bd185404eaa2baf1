"""The benchmarks of merging measure what they say: a family of the promised kind, a floor that reads all of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.merge import cold
from benchmarks.merge.family import SIZES, Family, adapters, family
from benchmarks.merge.floor import Floor
from benchmarks.merge.recipes import drawn, recipe_of, resolved
from benchmarks.merge.run import PARTS
from evomerge.backends.weights.store import WeightStore
from evomerge.recipe.mergekit.read import read_mergekit
from evomerge.recipe.tree import Input, Merge, Source
from evomerge.strategies.merge.registry import methods

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tiny(root: Path) -> Family:
    return family("tiny", root)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.merge.run", *words]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_the_size_that_is_named_374m_is_that_of_374_million_parameters() -> None:
    assert 373e6 < SIZES["374m"].parameters < 375e6


def test_experts_are_the_base_with_small_changes_all_in_bf16(tiny: Family) -> None:
    base, *experts = map(tensors_of, (tiny.base, *tiny.experts))
    assert {name: tuple(tensor.shape) for name, tensor in base.items()} == SIZES["tiny"].tensors
    for expert in experts:
        for name, tensor in expert.items():
            assert tensor.dtype == torch.bfloat16
            assert not tensor.equal(base[name])
            assert (tensor.float() - base[name].float()).std() < 0.2 * base[name].float().abs().mean()
    assert not experts[0]["lm_head.weight"].equal(experts[1]["lm_head.weight"])


def test_a_family_is_made_once_and_always_the_same(tiny: Family, root: Path, tmp_path: Path) -> None:
    before = (tiny.base / "model.safetensors").stat()
    assert family("tiny", root) == tiny
    assert (tiny.base / "model.safetensors").stat() == before
    again = family("tiny", tmp_path)
    assert (again.experts[2] / "model.safetensors").read_bytes() == (tiny.experts[2] / "model.safetensors").read_bytes()


def test_its_adapters_can_be_merged_with_its_base(tiny: Family) -> None:
    store = WeightStore()
    inputs = tuple(Input(Source(str(folder))) for folder in adapters(tiny))
    recipe = store.resolve(Merge("task_arithmetic", inputs, Source(str(tiny.base))), tiny.base)
    store.check(recipe)
    assert {factors.a.shape[0] for factors in store.low_rank(recipe).values()} == {3 * 16}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("models", [1, 2, 4])
def test_the_floor_reads_every_word_of_every_model_and_writes_all_of_the_result(
    tiny: Family, threads: int, models: int
) -> None:
    files = [folder / "model.safetensors" for folder in (tiny.base, *tiny.experts)]
    floor = Floor(files, threads)
    assert floor.run(models) > 0
    wanted = np.bitwise_xor.reduce(
        [np.fromfile(file, np.uint64, file.stat().st_size // 8) for file in files[:models]], axis=0
    )
    assert (floor.result() == wanted).all()


@pytest.mark.parametrize("name", methods())
def test_every_method_can_be_measured_with_genes_that_are_new_each_time(tiny: Family, name: str) -> None:
    store, method = WeightStore(), methods()[name]
    recipe = resolved(store, recipe_of(method, tiny), tiny)
    one, two = (drawn(recipe, method, seed) for seed in (1, 2))
    if any(parameter.low is not None for parameter in method.parameters):
        assert (one.params, one.inputs) != (two.params, two.inputs)
    assert store.outline(recipe).keys() == dict(store.tensors(one)).keys()


def test_both_programs_are_given_the_same_file_and_it_says_what_is_measured(tiny: Family, tmp_path: Path) -> None:
    assert cold.said([methods()["della"], methods()["pcb"]], tiny, tmp_path) == ["della"]
    store = WeightStore()
    ours = resolved(store, drawn(recipe_of(methods()["della"], tiny), methods()["della"], seed=0), tiny)
    read = store.resolve(read_mergekit(tmp_path / "della.yaml").recipe, tiny.base)
    assert isinstance(read, Merge)
    assert read.inputs == ours.inputs
    assert read.params == {**ours.params, "rescale": "l1"}


def test_a_run_prints_a_table_for_each_part(tiny: Family, root: Path) -> None:
    done = run("--size", "tiny", "--cache", str(root), "--repeats", "1", "--quick", "--methods", "linear",
               "--parts", "candidates,adapters,memory")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| linear |") == 2
    assert "| `cat` |" in done.stdout


def test_a_method_or_part_that_is_not_known_ends_a_run_at_once(root: Path) -> None:
    done = run("--cache", str(root), "--methods", "linaer", "--parts", "colt")
    assert done.returncode == 1
    assert "linaer, colt: methods are" in done.stderr
    assert all(part in done.stderr for part in PARTS)
