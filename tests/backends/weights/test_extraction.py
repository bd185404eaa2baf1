"""Whole models as adapters: the best of that rank for every weight, and what it lacks, measured and said."""

import json
import math
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from evomerge.backends.weights.artifact import AdapterArtifact, LowRank
from evomerge.backends.weights.export import export
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import SourceError
from evomerge.recipe.tree import Input, Merge, Per, Slice, Source, Stack
from evomerge.recipe.values import ByGroup
from tests.backends.weights.family import Copy, Zoo, edit_json

RANK = 3
MATH, CODE, BASE = Source("math"), Source("code"), Source("base")
EXTRACT = Merge("task_arithmetic", (Input(MATH),), BASE, refactor=RANK)


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def linear(name: str) -> bool:
    return name.endswith("_proj.weight") or name == "lm_head.weight"


def changes(zoo: Zoo, model: str) -> dict[str, torch.Tensor]:
    base, tuned = state(zoo.root / "base"), state(zoo.root / model)
    return {name: tuned[name].double() - base[name].double() for name in base}


def relative(missing: torch.Tensor, whole: torch.Tensor) -> float:
    return float(missing.double().norm() / whole.double().norm())


def product(low: LowRank) -> torch.Tensor:
    return low.b.double() @ low.a.double()


def test_every_linear_weight_has_the_best_change_of_that_rank(store: WeightStore, zoo: Zoo, experts: list[Path]):
    recipe = store.resolve(EXTRACT, zoo.root)
    store.check(recipe)
    expected = {name: change for name, change in changes(zoo, "math").items() if linear(name)}
    factors = store.low_rank(recipe)
    assert {f"{module}.weight" for module in factors} == expected.keys()
    for module, low in factors.items():
        change = expected[f"{module}.weight"]
        values = torch.linalg.svd(change)[1]
        assert low.a.shape == (RANK, change.shape[1])
        optimum = float(values[RANK:].norm() / values.norm())
        assert relative(change - product(low), change) == pytest.approx(optimum, abs=1e-6)


def test_what_is_lost_is_measured_for_each_module_and_for_all(store: WeightStore, zoo: Zoo, experts: list[Path]):
    recipe = store.resolve(EXTRACT, zoo.root)
    factors = store.low_rank(recipe)
    loss = store.loss(recipe, factors)
    assert loss is not None
    whole, squares, missing = changes(zoo, "math"), 0.0, 0.0
    for name, change in whole.items():
        module = name.removesuffix(".weight")
        left = change - product(factors[module]) if module in factors else change
        squares, missing = squares + float(change.square().sum()), missing + float(left.square().sum())
        if module in factors:
            assert loss.modules[module] == pytest.approx(relative(left, change), rel=1e-4)
    assert loss.total == pytest.approx(math.sqrt(missing / squares), rel=1e-4)
    assert loss.rank == RANK
    assert loss.left_out.keys() == {name for name in whole if not linear(name)}
    assert 0 < math.hypot(*loss.left_out.values()) < loss.total


def test_more_rank_lacks_less_until_only_what_no_adapter_carries_is_lacking(
    store: WeightStore, zoo: Zoo, experts: list[Path]
):
    losses = []
    for rank in (1, 4, 8, 16):
        recipe = store.resolve(Merge("task_arithmetic", (Input(MATH),), BASE, refactor=rank), zoo.root)
        losses.append(store.loss(recipe, store.low_rank(recipe)))
    carried = [loss.carried for loss in losses if loss is not None]
    assert carried == sorted(carried, reverse=True)
    assert len(carried) == 4
    assert carried[-1] < 1e-5
    last = losses[-1]
    assert last is not None
    assert last.total == pytest.approx(math.hypot(*last.left_out.values()), rel=1e-5)


def test_the_adapter_is_written_for_peft_with_its_loss_in_the_card(
    store: WeightStore, zoo: Zoo, experts: list[Path], tmp_path: Path
):
    recipe = store.resolve(EXTRACT, zoo.root)
    artifact = export(store, recipe, tmp_path / "out")
    assert isinstance(artifact, AdapterArtifact)
    assert artifact.rank == RANK
    assert artifact.loss is not None
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["rank_pattern"]) == (RANK, {})
    model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(zoo.base), tmp_path / "out").merge_and_unload()
    scored = dict(store.tensors(recipe))
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, scored[name], rtol=0, atol=1e-6)
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"Rank 3 leaves out {artifact.loss.total:.2%} of the change to the base" in card
    assert f"| `model.layers.0.mlp.up_proj` | {artifact.loss.modules['model.layers.0.mlp.up_proj']:.2%} |" in card
    assert "model.embed_tokens.weight" in artifact.loss.left_out


def test_a_merge_of_several_whole_models_is_factored_after_it_was_merged(
    store: WeightStore, zoo: Zoo, experts: list[Path]
):
    per = Per(groups=("attention", "norms", "rest"))
    weight = ByGroup({"attention": 0.5, "norms": 1.0, "rest": 0.25})
    merge = Merge("ties", (Input(MATH, {"weight": weight, "density": 0.5}), Input(CODE)), BASE, per=per)
    whole = dict(store.tensors(store.resolve(merge, zoo.root)))
    recipe = store.resolve(Merge(merge.method, merge.inputs, BASE, per=per, refactor=16), zoo.root)
    store.check(recipe)
    base = state(zoo.base)
    for name, tensor in store.tensors(recipe):
        torch.testing.assert_close(tensor, whole[name] if linear(name) else base[name], rtol=0, atol=1e-6)


def test_an_extracted_adapter_is_merged_with_others_as_one(
    store: WeightStore, zoo: Zoo, adapters: list[Path], experts: list[Path]
):
    outer = Merge("task_arithmetic", (Input(EXTRACT, {"weight": 0.5}), Input(Source("short"))), BASE)
    recipe = store.resolve(outer, zoo.root)
    store.check(recipe)
    artifact = store.artifact(recipe)
    assert isinstance(artifact, AdapterArtifact)
    extracted = store.low_rank(store.resolve(EXTRACT, zoo.root))
    alone = store.low_rank(store.resolve(Merge("task_arithmetic", (Input(Source("short")),), BASE), zoo.root))
    for module, low in store.low_rank(recipe).items():
        expected = product(extracted[module]) * 0.5
        if module in alone:
            expected += product(alone[module])
        torch.testing.assert_close(product(low), expected, rtol=0, atol=1e-6)
    assert store.loss(recipe, store.low_rank(recipe)) is None


def test_a_truncated_sum_of_adapters_says_what_it_lacks(store: WeightStore, zoo: Zoo, adapters: list[Path]):
    inputs = tuple(Input(Source(folder.name)) for folder in adapters)
    exact, cut = (store.resolve(Merge("task_arithmetic", inputs, BASE, refactor=rank), zoo.root) for rank in (50, 2))
    assert store.loss(exact, store.low_rank(exact)) is None
    loss = store.loss(cut, store.low_rank(cut))
    assert loss is not None
    full = store.low_rank(exact)
    for module, low in store.low_rank(cut).items():
        missing = product(full[module]) - product(low)
        assert loss.modules[module] == pytest.approx(relative(missing, product(full[module])), abs=1e-4)
    assert not loss.left_out


def test_a_model_that_changes_nothing_loses_nothing(store: WeightStore, zoo: Zoo):
    recipe = store.resolve(Merge("task_arithmetic", (Input(BASE),), BASE, refactor=2), zoo.root)
    loss = store.loss(recipe, store.low_rank(recipe))
    assert loss is not None
    assert (loss.total, loss.carried, dict(loss.left_out)) == (0.0, 0.0, {})


def test_weights_that_lie_the_other_way_round_are_refused(
    store: WeightStore, zoo: Zoo, experts: list[Path], copied: Copy
):
    folder = copied(zoo.base)
    edit_json(folder / "config.json", model_type="gpt2")
    recipe = store.resolve(Merge("linear", (Input(MATH),), Source(str(folder)), refactor=2), zoo.root)
    with pytest.raises(SourceError, match="models of the type gpt2 have their weights transposed"):
        store.check(recipe)


def test_a_stack_is_not_factored_on_a_base_of_other_layers(store: WeightStore, zoo: Zoo, experts: list[Path]):
    stack = Stack((Slice(MATH, (0, 2)), Slice(MATH, (1, 3))))
    recipe = store.resolve(Merge("linear", (Input(stack),), BASE, refactor=2), zoo.root)
    with pytest.raises(SourceError, match=r"has the tensor model\.layers\.3"):
        store.check(recipe)
