"""mergekit as an oracle: what both can merge comes out the same, and where it does not, the difference has a name.

mergekit computes here in float32, as we do, so that only formulas are compared; it runs in an environment of its own
(`.venv-mergekit`), once for all tests. Results are compared within one unit in the last place of bf16.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from evomerge.backends.weights.export import export
from evomerge.backends.weights.store import WeightStore
from evomerge.recipe.mergekit.read import read_mergekit
from evomerge.recipe.tree import Input, Merge, Per, Slice, Source, Stack, WeightRecipe
from evomerge.recipe.values import ByGroup, Gradient
from tests.oracle.cases import (
    ALIKE,
    BELOW_ZERO,
    CASES,
    CLOSE,
    CRUMB,
    DIFFERENT,
    IN_BF16,
    OPPOSED,
    RANDOM,
    SPHERE,
    UNBIASED,
    WRITTEN,
    Case,
)
from tests.oracle.families import Family, Tensors, write_families
from tests.support.require import require

MOST_SPLIT = 0.3
"""Largest share of a model's elements that ties may decide, for the rest to say something."""

BLOCKS = 50
"""Parts of a model over which a statistic's own spread is taken."""

DRIVER = Path(__file__).with_name("driver.py")


def key(case: Case, family: str) -> str:
    return f"{case.name} {family}".replace(",", "").replace(" ", "-")


def exported(case: Case) -> str:
    return f"exported-{key(case, 'odd')}"


def each(cases: tuple[Case, ...]) -> list[object]:
    return [pytest.param(case, family, id=key(case, family)) for case in cases for family in case.families]


def by_role(family: Family) -> Merge:
    weight = ByGroup({"attention": 0.3, "mlp": Gradient((0.2, 0.9, 0.5)), "rest": 0.7})
    inputs = (Input(Source(str(family.experts[0])), {"weight": weight}), Input(Source(str(family.experts[1]))))
    per = Per(groups=("attention", "mlp", "rest"))
    return Merge("task_arithmetic", inputs, Source(str(family.base)), {"scale": 0.6}, per=per)


def by_layers(family: Family) -> Merge:
    weight = ByGroup({"embeddings": 0.1, "layers_0": 0.4, "layers_1": 0.9, "head": 0.2})
    inputs = tuple(Input(Source(str(expert)), {"weight": weight, "density": 1.0}) for expert in family.experts)
    return Merge("ties", inputs, Source(str(family.base)), {"merge_func": "mean"}, per=Per(layers=2))


def along_depth(family: Family) -> Merge:
    t = ByGroup({"attention": Gradient((0.0, 0.8)), "rest": 0.5})
    inputs = (Input(Source(str(family.experts[0]))),)
    return Merge("slerp", inputs, Source(str(family.base)), {"t": t}, per=Per(groups=("attention", "rest")))


def without_base(family: Family) -> Merge:
    points = ((0.2, 1.0), (0.5, 0.1, 0.3), (0.4, 0.4))
    pairs = zip(family.experts, points, strict=True)
    return Merge("linear", tuple(Input(Source(str(expert)), {"weight": Gradient(own)}) for expert, own in pairs))


def stacked(family: Family) -> Stack:
    models = [Source(str(folder)) for folder in (family.base, *family.experts)]
    return Stack((Slice(models[0], (0, 2)), Slice(models[1], (1, 3), scale=0.5), Slice(models[2], (2, 3))), head="last")


def sliced(family: Family) -> Stack:
    def of(first: int, end: int, *weights: float) -> Slice:
        pairs = zip(family.experts, weights, strict=False)
        inputs = (
            Input(Stack((Slice(Source(str(folder)), (first, end)),)), {"weight": Gradient((weight, weight / 2))})
            for folder, weight in pairs
        )
        return Slice(Merge("task_arithmetic", tuple(inputs), Stack((Slice(Source(str(family.base)), (first, end)),))))

    return Stack((of(0, 2, 0.3, 0.5, 0.1), of(1, 3, 0.7, 0.2)), head="last")


EXPORTED: Mapping[str, Callable[[Family], WeightRecipe]] = {
    made.__name__: made for made in (by_role, by_layers, along_depth, without_base, stacked, sliced)
}
WRITTEN_BY_US = tuple(case for case in CASES if "odd" in case.families)
"""Cases that are also exported, for mergekit to make the same of the file that we write for it."""


@dataclass(frozen=True)
class Oracle:
    """The families, what mergekit made of them, and what we exported."""

    folder: Path
    families: Mapping[str, Family]
    exports: Path

    def merged(self, name: str) -> Tensors:
        error = self.folder / f"{name}.error"
        assert not error.exists(), error.read_text(encoding="utf-8")
        return load_file(self.folder / name / "model.safetensors")


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    python = require("mergekit")
    families = write_families(tmp_path_factory.mktemp("families"))
    folder, exports = tmp_path_factory.mktemp("mergekit"), tmp_path_factory.mktemp("exports")
    for case in (*CASES, *RANDOM, *DIFFERENT):
        for name in case.families:
            config = case.config(families[name])
            (folder / f"{key(case, name)}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for name, made in EXPORTED.items():
        store = WeightStore()
        export(store, store.resolve(made(families["odd"]), Path.cwd()), exports / name)
        shutil.copy(exports / name / "mergekit.yaml", folder / f"{name}.yaml")
    for case in WRITTEN_BY_US:
        store, name = WeightStore(), exported(case)
        export(store, store.resolve(recipe_of(case, families["odd"]), Path.cwd()), exports / name)
        config = yaml.safe_load((exports / name / "mergekit.yaml").read_text(encoding="utf-8"))
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config | {"dtype": case.dtype}), encoding="utf-8")
    odd = families["odd"]
    for name, text in WRITTEN.items():
        one, two, _ = odd.experts
        told = text.replace("BASE", str(odd.base)).replace("ONE", str(one)).replace("TWO", str(two))
        (folder / f"{name}.yaml").write_text(told, encoding="utf-8")
    done = subprocess.run([str(python), str(DRIVER), str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Oracle(folder, families, exports)


def merged(case: Case, family: Family) -> Tensors:
    """What evomerge makes of a case."""
    return computed(recipe_of(case, family))


def recipe_of(case: Case, family: Family) -> Merge:
    pairs = zip(family.experts, case.models, strict=False)
    inputs = tuple(Input(Source(str(expert)), params) for expert, params in pairs)
    base = Source(str(family.base)) if case.base else None
    return Merge(case.method, inputs, base, case.params, seed=1)


def computed(recipe: WeightRecipe) -> Tensors:
    """What evomerge makes of a recipe."""
    store = WeightStore()
    recipe = store.resolve(recipe, Path.cwd())
    store.check(recipe)
    return dict(store.tensors(recipe))


def off(ours: torch.Tensor, theirs: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """Where two results differ by more than one unit in the last place of the larger of base and result."""
    larger = torch.stack([ours.double(), theirs.double(), base.double()]).abs().amax(0)
    unit = torch.ldexp(torch.ones_like(larger), torch.frexp(larger).exponent.clamp(min=-125) - 8)
    return ~((ours.double() - theirs.double()).abs() <= unit)


@dataclass(frozen=True)
class Compared:
    """One tensor of a merge: ours, theirs, the base's, and the task vectors of the experts that were merged."""

    name: str
    ours: torch.Tensor
    theirs: torch.Tensor
    base: torch.Tensor
    deltas: list[torch.Tensor]


def compared(
    oracle: Oracle, case: Case, name: str, ours: Tensors | None = None, theirs: Tensors | None = None
) -> Iterator[Compared]:
    family = oracle.families[name]
    ours, theirs = ours or merged(case, family), theirs or oracle.merged(key(case, name))
    assert ours.keys() == theirs.keys()
    base, *experts = (load_file(folder / "model.safetensors") for folder in (family.base, *family.experts))
    for tensor, own in ours.items():
        assert own.dtype == theirs[tensor].dtype
        deltas = [expert[tensor].float() - base[tensor].float() for expert in experts[: len(case.models)]]
        yield Compared(tensor, own, theirs[tensor], base[tensor], deltas)


@pytest.mark.parametrize(("case", "name"), each(CASES))
def test_a_merge_is_the_same(oracle: Oracle, case: Case, name: str) -> None:
    check_same(case, compared(oracle, case, name))


@pytest.mark.parametrize(("case", "name"), each(CASES))
def test_the_yaml_of_mergekit_is_read_as_mergekit_reads_it(oracle: Oracle, case: Case, name: str) -> None:
    ours = computed(read_mergekit(oracle.folder / f"{key(case, name)}.yaml").recipe)
    check_same(case, compared(oracle, case, name, ours))


def check_same(case: Case, tensors: Iterator[Compared]) -> None:
    elements = split = 0
    for tensor in tensors:
        wrong = off(tensor.ours, tensor.theirs, tensor.base)
        if case.split is not None:
            doubtful = case.split(tensor.base, tensor.deltas, case.models)
            split += int(doubtful.sum())
            wrong &= ~doubtful
        elements += wrong.numel()
        assert not wrong.any(), f"{tensor.name}: {tensor.ours[wrong][:5]} and {tensor.theirs[wrong][:5]}"
    assert split <= MOST_SPLIT * elements


@pytest.mark.parametrize("name", WRITTEN)
def test_files_as_people_write_them_are_read_as_mergekit_reads_them(oracle: Oracle, name: str) -> None:
    ours, theirs = computed(read_mergekit(oracle.folder / f"{name}.yaml").recipe), oracle.merged(name)
    assert ours.keys() == theirs.keys()
    for tensor, own in ours.items():
        assert own.dtype == theirs[tensor].dtype
        usual = own.float().abs().mean().expand_as(own)  # sums may cancel
        assert not off(own, theirs[tensor], usual).any(), tensor


def test_every_method_of_mergekit_is_compared(oracle: Oracle) -> None:
    theirs = set((oracle.folder / "methods").read_text(encoding="utf-8").split())
    stacks = {"passthrough"}
    assert {case.their_method or case.method for case in (*CASES, *RANDOM)} | stacks == theirs


@pytest.mark.parametrize("name", EXPORTED)
def test_the_mergekit_yaml_of_an_export_gives_the_tensors_of_the_export(oracle: Oracle, name: str) -> None:
    ours, theirs = load_file(oracle.exports / name / "model.safetensors"), oracle.merged(name)
    base = load_file(oracle.families["odd"].base / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for tensor, own in ours.items():
        assert own.dtype == theirs[tensor].dtype
        assert not off(own, theirs[tensor], base.get(tensor, own)).any(), tensor


@pytest.mark.parametrize("case", WRITTEN_BY_US, ids=exported)
def test_mergekit_makes_the_same_of_the_file_that_an_export_has_for_it(oracle: Oracle, case: Case) -> None:
    ours = load_file(oracle.exports / exported(case) / "model.safetensors")
    check_same(case, compared(oracle, case, "odd", ours, oracle.merged(exported(case))))


def statistics(change: torch.Tensor, tensor: Compared) -> torch.Tensor:
    """What can be told of a change without its mask, for blocks of a tensor: an array of blocks x statistics."""
    strong = (tensor.deltas[0].abs() > tensor.deltas[0].abs().median(dim=-1, keepdim=True).values).double()
    whole = torch.stack(tensor.deltas).sum(0)
    terms = (change == 0, (change == 0) * strong, change, change.abs(), change * whole, *(change * tensor.deltas[0],))
    return torch.stack([torch.stack([part.double().mean() for part in term.flatten().chunk(BLOCKS)]) for term in terms])


@pytest.mark.parametrize(("case", "name"), each(RANDOM))
def test_random_merges_have_the_same_statistics(oracle: Oracle, case: Case, name: str) -> None:
    apart = [
        statistics(tensor.ours - tensor.base, tensor) - statistics(tensor.theirs - tensor.base, tensor)
        for tensor in compared(oracle, case, name)
        if tensor.base.numel() > 100 * BLOCKS
    ]
    blocks = torch.cat(apart, dim=1)
    error = blocks.std(dim=1) / blocks.shape[1] ** 0.5
    assert (error > 0).all()
    assert (blocks.mean(dim=1).abs() <= 5 * error).all(), f"{blocks.mean(dim=1) / error} standard errors apart"


def test_a_weight_below_zero_unlearns_where_mergekit_divides_the_sign_away(oracle: Oracle) -> None:
    for tensor in compared(oracle, BELOW_ZERO, "odd"):
        (delta,) = tensor.deltas
        assert not off(tensor.ours, (tensor.base.float() - delta).bfloat16(), tensor.base).any()
        assert not off(tensor.theirs, (tensor.base.float() + delta).bfloat16(), tensor.base).any()


def test_what_dare_keeps_is_divided_by_the_density_where_mergekit_keeps_the_sum_of_magnitudes(oracle: Oracle) -> None:
    for tensor in compared(oracle, UNBIASED, "large"):
        (delta,) = tensor.deltas
        if delta.dim() == 1:
            continue
        for result, unbiased in ((tensor.ours, True), (tensor.theirs, False)):
            kept = result != tensor.base
            wanted = 1 / 0.4 if unbiased else float(delta.abs().sum() / delta[kept].abs().sum())
            factor = ((result - tensor.base)[kept] / delta[kept]).median()
            assert float(factor) == pytest.approx(wanted, rel=1e-4)


def test_signs_are_elected_in_float32_where_mergekit_rounds_to_what_the_user_asked_for(oracle: Oracle) -> None:
    wrong = elements = 0
    for tensor in compared(oracle, IN_BF16, "odd"):
        wrong += int(off(tensor.ours, tensor.theirs, tensor.base).sum())
        elements += tensor.base.numel()
    assert wrong > elements / 1000


def test_opposed_task_vectors_leave_the_base_where_mergekit_goes_beyond_it(oracle: Oracle) -> None:
    for tensor in compared(oracle, OPPOSED, "opposed"):
        assert tensor.ours.equal(tensor.base)
        mean = torch.stack(tensor.deltas).mean(0)
        assert ((tensor.theirs.float() - tensor.base.float()) * mean < 0).all()


def test_a_small_density_keeps_an_entry_where_mergekit_erases_the_tensor(oracle: Oracle) -> None:
    for tensor in compared(oracle, CRUMB, "thin"):
        (delta,) = tensor.deltas
        kept = tensor.ours != tensor.base
        assert int(kept.sum()) == 1
        assert delta[kept].abs().bfloat16() == delta.abs().max().bfloat16()
        assert tensor.theirs.equal(tensor.base)


def test_multislerp_is_the_mean_of_directions_in_mergekit_too_and_no_mean_on_the_sphere(oracle: Oracle) -> None:
    for tensor in compared(oracle, SPHERE, "odd"):
        models = [(tensor.base.float() + delta).double() for delta in tensor.deltas]
        mean = torch.stack([model / model.norm() for model in models]).mean(0)
        closed = mean / mean.norm() * torch.stack([model.norm() for model in models]).mean()
        for result in (tensor.ours, tensor.theirs):
            assert not off(result, closed, closed).any()


def test_sce_of_equal_experts_is_that_expert_where_mergekit_returns_the_base(oracle: Oracle) -> None:
    for tensor in compared(oracle, ALIKE, "alike"):
        assert not off(tensor.ours, (tensor.base.float() + tensor.deltas[0]).bfloat16(), tensor.base).any()
        assert tensor.theirs.equal(tensor.base)


def test_sce_weighs_small_changes_as_it_does_large_ones_where_mergekit_takes_all_as_equal(oracle: Oracle) -> None:
    wrong = 0
    for tensor in compared(oracle, CLOSE, "close"):
        deltas = torch.stack(tensor.deltas).double()
        energy = deltas.square().flatten(1).sum(1)
        agree = deltas.sign() == torch.where(deltas.sum(0) >= 0, 1.0, -1.0)
        weights = (energy / energy.sum()).view(-1, *(1 for _ in tensor.base.shape)) * agree
        change = (weights * deltas).sum(0) / weights.sum(0).clamp(min=1e-6)
        assert torch.allclose((tensor.ours - tensor.base).double(), change, atol=1e-6)
        wrong += int(((tensor.theirs - tensor.base).double() - change).abs().gt(1e-5).sum())
    assert wrong
