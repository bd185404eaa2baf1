"""Merges of adapters, against peft's own arithmetic and float64."""

from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from evomerge.backends.weights.artifact import AdapterArtifact, CheckpointArtifact
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import CandidateError, ConfigError, SourceError
from evomerge.recipe.tree import Input, Merge, Per, Source, WeightRecipe, sources
from evomerge.recipe.values import ByGroup
from tests.backends.weights.family import Copy, Zoo, edit_json

WEIGHTS = (0.5, -0.75, 1.5)


def task_vectors(base: Path, adapter: Path) -> dict[str, np.ndarray]:
    """What peft adds to each weight when it merges an adapter, in float64."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    peft = PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=False).double()
    merged = peft.merge_and_unload().state_dict()
    return {name: (merged[name] - before[name]).numpy() for name in before}


def inputs(adapters: list[Path], weights: Any = WEIGHTS) -> tuple[Input, ...]:
    return tuple(
        Input(Source(str(folder)), {"weight": weight}) for folder, weight in zip(adapters, weights, strict=True)
    )


def rank_of(store: WeightStore, recipe: WeightRecipe) -> int:
    artifact = store.artifact(recipe)
    assert isinstance(artifact, AdapterArtifact)
    return artifact.rank


def base_of(zoo: Zoo) -> dict[str, np.ndarray]:
    return {name: t.double().numpy() for name, t in AutoModelForCausalLM.from_pretrained(zoo.base).state_dict().items()}


class Resolved(Protocol):
    def __call__(self, method: str = ..., chosen: list[Path] = ..., weights: Any = ..., **more: Any) -> Merge: ...


@pytest.fixture
def resolved(store: WeightStore, zoo: Zoo, adapters: list[Path]) -> Resolved:
    def make(
        method: str = "task_arithmetic", chosen: list[Path] = adapters, weights: Any = WEIGHTS, **more: Any
    ) -> Merge:
        recipe = Merge(method, inputs(chosen, weights), base=Source(str(zoo.base)), **more)
        return cast(Merge, store.resolve(recipe, Path("/")))

    return make


def test_one_adapter_changes_what_peft_changes(store: WeightStore, zoo: Zoo, adapters: list[Path], resolved: Resolved):
    for adapter in adapters:
        vectors = task_vectors(zoo.base, adapter)
        factors = store.low_rank(resolved(chosen=[adapter], weights=(1.0,)))
        changed = {f"{module}.weight" for module in factors}
        assert changed == {name for name, vector in vectors.items() if vector.any()}
        for module, low in factors.items():
            assert low.a.dtype == low.b.dtype == torch.float32
            np.testing.assert_allclose(low.b.double() @ low.a.double(), vectors[f"{module}.weight"], atol=1e-6)


def test_any_ranks_scales_targets_and_signs_add_up_exactly(
    store: WeightStore, zoo: Zoo, adapters: list[Path], resolved: Resolved
):
    recipe = resolved(params={"scale": 0.5})
    vectors = [task_vectors(zoo.base, adapter) for adapter in adapters]
    factors = store.low_rank(recipe)
    assert {f"{module}.weight" for module in factors} == {n for v in vectors for n, delta in v.items() if delta.any()}
    for module, low in factors.items():
        expected = 0.5 * sum(weight * v[f"{module}.weight"] for weight, v in zip(WEIGHTS, vectors, strict=True))
        np.testing.assert_allclose(low.b.double() @ low.a.double(), expected, atol=1e-6)
    assert factors["model.layers.0.self_attn.q_proj"].a.shape[0] == 2 + 5 + 4
    assert factors["model.layers.0.mlp.up_proj"].a.shape[0] == 5
    artifact = store.artifact(recipe)
    assert artifact == AdapterArtifact(
        next(sources(recipe)), zoo.base, 11, sum(f.a.nbytes + f.b.nbytes for f in factors.values())
    )


def test_the_dense_checkpoint_is_the_base_plus_the_factors(
    store: WeightStore, zoo: Zoo, adapters: list[Path], resolved: Resolved
):
    recipe = resolved()
    vectors = [task_vectors(zoo.base, adapter) for adapter in adapters]
    for name, tensor in store.tensors(recipe):
        expected = base_of(zoo)[name] + sum(w * v[name] for w, v in zip(WEIGHTS, vectors, strict=True))
        np.testing.assert_allclose(tensor.numpy(), expected, atol=2e-6)


def test_adapters_of_weight_zero_take_no_rank(store: WeightStore, adapters: list[Path], resolved: Resolved):
    assert rank_of(store, resolved(weights=(0.5, 0.0, 1.0))) == 2 + 4
    factors = store.low_rank(resolved(weights=(0.0, 0.0, 0.0)))
    assert {low.a.shape[0] for low in factors.values()} == {1}
    assert not any(bool(low.a.any() or low.b.any()) for low in factors.values())
    assert rank_of(store, resolved(weights=(0.0, 0.0, 0.0))) == 1


def test_an_adapter_that_stands_twice_counts_with_both_weights(
    store: WeightStore, adapters: list[Path], resolved: Resolved
):
    twice = store.low_rank(resolved(chosen=[adapters[0], adapters[0]], weights=(0.5, 0.75)))
    once = store.low_rank(resolved(chosen=[adapters[0]], weights=(1.25,)))
    for module, low in twice.items():
        torch.testing.assert_close(low.b @ low.a, once[module].b @ once[module].a)


def test_a_normalised_average_of_adapters_is_an_adapter_and_others_are_not(
    store: WeightStore, zoo: Zoo, adapters: list[Path], resolved: Resolved
):
    recipe = resolved("linear", weights=(1.0, 2.0, 5.0))
    vectors = [task_vectors(zoo.base, adapter) for adapter in adapters]
    assert isinstance(store.artifact(recipe), AdapterArtifact)
    low = store.low_rank(recipe)["model.layers.1.self_attn.q_proj"]
    expected = sum(w / 8 * v["model.layers.1.self_attn.q_proj.weight"] for w, v in zip((1, 2, 5), vectors, strict=True))
    np.testing.assert_allclose(low.b.double() @ low.a.double(), expected, atol=1e-6)
    assert isinstance(store.artifact(resolved("linear", params={"normalize": False})), CheckpointArtifact)
    assert isinstance(
        store.artifact(resolved("linear", weights=(0.5, 0.25, 0.25), params={"normalize": False})), AdapterArtifact
    )


def test_weights_that_cannot_be_normalised_are_a_candidates_error(
    store: WeightStore, adapters: list[Path], resolved: Resolved
):
    with pytest.raises(CandidateError, match="add up to zero"):
        store.artifact(resolved("linear", chosen=adapters[:2], weights=(1.0, -1.0)))


def test_a_merge_of_merges_of_adapters_is_one_adapter(store: WeightStore, zoo: Zoo, adapters: list[Path]):
    base = Source(str(zoo.base))
    inner = Merge("linear", inputs(adapters[:2], (1.0, 3.0)), base=base)
    outer = Merge("task_arithmetic", (Input(inner, {"weight": -2.0}), *inputs(adapters[2:], (1.0,))), base=base)
    recipe = store.resolve(outer, Path("/"))
    vectors = [task_vectors(zoo.base, adapter) for adapter in adapters]
    assert rank_of(store, recipe) == 11
    for module, low in store.low_rank(recipe).items():
        first, second, third = (v[f"{module}.weight"] for v in vectors)
        np.testing.assert_allclose(low.b.double() @ low.a.double(), -0.5 * first - 1.5 * second + third, atol=1e-6)


def test_groups_give_each_module_its_own_weights(
    store: WeightStore, zoo: Zoo, adapters: list[Path], resolved: Resolved
):
    weight = ByGroup({"attention": 1.0, "mlp": 0.0})
    recipe = resolved(chosen=adapters[1:2], weights=(weight,), per=Per(groups=("attention", "mlp")))
    vectors = task_vectors(zoo.base, adapters[1])
    factors = store.low_rank(recipe)
    assert not factors["model.layers.0.mlp.up_proj"].b.any()
    q_proj = factors["model.layers.0.self_attn.q_proj"]
    np.testing.assert_allclose(
        q_proj.b.double() @ q_proj.a.double(), vectors["model.layers.0.self_attn.q_proj.weight"], atol=1e-6
    )


def test_a_merge_touches_the_union_of_what_its_adapters_change(
    store: WeightStore, adapters: list[Path], resolved: Resolved
):
    layout = store.layout(resolved(chosen=[adapters[0], adapters[2]], weights=(1.0, 1.0)))
    assert layout.tensors[:3] == (
        "model.layers.0.mlp.down_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.self_attn.o_proj.weight",
    )
    assert len(layout.tensors) == 3 * 5


def test_a_method_that_is_no_sum_makes_a_checkpoint_of_adapters(
    store: WeightStore, zoo: Zoo, adapters: list[Path], resolved: Resolved
):
    recipe = resolved("dare_linear", seed=3)
    assert isinstance(store.artifact(recipe), CheckpointArtifact)
    base, merged = base_of(zoo), dict(store.tensors(recipe))
    unchanged = merged.keys() - set(store.layout(recipe).tensors)
    assert unchanged
    for name in unchanged:
        np.testing.assert_array_equal(merged[name].numpy(), base[name])
    full = resolved("dare_linear", chosen=adapters[:1], weights=(1.0,), seed=3)
    vector, name = task_vectors(zoo.base, adapters[0]), "model.layers.0.self_attn.q_proj.weight"
    change = dict(store.tensors(full))[name].numpy() - base[name]
    kept = np.abs(change) > 1e-6
    assert 0.5 < kept.mean() < 0.9
    np.testing.assert_allclose(change[kept], vector[name][kept] / 0.7, atol=1e-6)


def test_refactor_is_the_best_adapter_of_that_rank(store: WeightStore, adapters: list[Path], resolved: Resolved):
    dense, recipe = resolved("dare_linear", seed=3), resolved("dare_linear", seed=3, refactor=3)
    assert rank_of(store, recipe) == 3
    whole, base = dict(store.tensors(dense)), dict(store.tensors(Source(next(sources(recipe)).model)))
    for module, low in store.low_rank(recipe).items():
        name = f"{module}.weight"
        change = (whole[name].double() - base[name].double()).numpy()
        left, values, right = np.linalg.svd(change, full_matrices=False)
        assert low.a.shape[0] == 3
        np.testing.assert_allclose(low.b.double() @ low.a.double(), (left[:, :3] * values[:3]) @ right[:3], atol=1e-5)


def test_a_refactored_merge_is_the_same_model_wherever_it_stands(
    store: WeightStore, zoo: Zoo, adapters: list[Path], resolved: Resolved
):
    recipe = resolved(refactor=2)
    base = base_of(zoo)
    expected = {f"{module}.weight": (low.b @ low.a).numpy() for module, low in store.low_rank(recipe).items()}
    for name, tensor in store.tensors(recipe):
        np.testing.assert_allclose(tensor.numpy(), base[name] + expected.get(name, 0.0), atol=1e-6)
    around = Merge("dare_linear", (Input(recipe, {"weight": 0.5, "density": 1.0}),), base=recipe.base)
    assert isinstance(store.artifact(around), CheckpointArtifact)
    for name, tensor in store.tensors(around):
        np.testing.assert_allclose(tensor.numpy(), base[name] + 0.5 * expected.get(name, 0.0), atol=1e-6)


def test_merges_of_adapters_on_two_bases_become_a_whole_model(
    store: WeightStore, zoo: Zoo, experts: list[Path], adapters: list[Path]
):
    inner = Merge("task_arithmetic", inputs(adapters[:1], (1.0,)), base=Source(str(experts[0])))
    recipe = store.resolve(Merge("task_arithmetic", (Input(inner),), base=Source(str(zoo.base))), Path("/"))
    assert isinstance(store.artifact(recipe), CheckpointArtifact)
    vectors, expert = task_vectors(zoo.base, adapters[0]), AutoModelForCausalLM.from_pretrained(experts[0]).state_dict()
    for name, tensor in store.tensors(recipe):
        np.testing.assert_allclose(tensor.numpy(), expert[name].double().numpy() + vectors[name], atol=2e-6)


def test_refactor_reduces_a_sum_only_where_its_rank_is_too_large(
    store: WeightStore, zoo: Zoo, adapters: list[Path], resolved: Resolved
):
    recipe = resolved(refactor=4)
    vectors = [task_vectors(zoo.base, adapter) for adapter in adapters]
    for module, low in store.low_rank(recipe).items():
        change = sum(w * v[f"{module}.weight"] for w, v in zip(WEIGHTS, vectors, strict=True))
        left, values, right = np.linalg.svd(change, full_matrices=False)
        assert low.a.shape[0] <= 4
        np.testing.assert_allclose(low.b.double() @ low.a.double(), (left[:, :4] * values[:4]) @ right[:4], atol=1e-5)
    assert store.low_rank(resolved(refactor=50))["model.layers.0.mlp.down_proj"].a.shape[0] == 5 + 3


def test_whole_models_and_adapters_merge_into_a_whole_model(
    store: WeightStore, zoo: Zoo, experts: list[Path], adapters: list[Path]
):
    both = (Input(Source(str(experts[0])), {"weight": 0.5}), *inputs(adapters[:1], (2.0,)))
    recipe = store.resolve(Merge("task_arithmetic", both, base=Source(str(zoo.base))), Path("/"))
    store.check(recipe)
    assert isinstance(store.artifact(recipe), CheckpointArtifact)
    base, vectors = base_of(zoo), task_vectors(zoo.base, adapters[0])
    expert = AutoModelForCausalLM.from_pretrained(experts[0]).state_dict()
    for name, tensor in store.tensors(recipe):
        expected = base[name] + 0.5 * (expert[name].double().numpy() - base[name]) + 2 * vectors[name]
        np.testing.assert_allclose(tensor.numpy(), expected, atol=2e-6)


def test_an_adapter_alone_stands_on_the_base_its_configuration_names(
    store: WeightStore, zoo: Zoo, adapters: list[Path]
):
    recipe = store.resolve(Source(str(adapters[0])), Path("/"))
    assert next(sources(recipe)).model == str(zoo.base)
    vectors, base = task_vectors(zoo.base, adapters[0]), base_of(zoo)
    for name, tensor in store.tensors(recipe):
        np.testing.assert_allclose(tensor.numpy(), base[name] + vectors[name], atol=1e-6)


def test_an_adapter_finds_a_relative_base_above_itself(
    store: WeightStore, zoo: Zoo, adapters: list[Path], copied: Copy
):
    folder = copied(adapters[0])
    base = folder.parent / "models" / "base"
    base.parent.mkdir()
    base.symlink_to(zoo.base)
    edit_json(folder / "adapter_config.json", base_model_name_or_path="models/base")
    assert next(sources(store.resolve(Source(str(folder)), Path("/")))).model == str(zoo.base)


def test_an_adapter_that_names_no_base_needs_one(store: WeightStore, adapters: list[Path], copied: Copy):
    folder = copied(adapters[0])
    edit_json(folder / "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(SourceError, match=r"adapter_config.json names no base.*write .* base:"):
        store.resolve(Source(str(folder)), Path("/"))


def test_an_adapter_without_a_base_is_refused(store: WeightStore, adapters: list[Path]):
    recipe = store.resolve(Merge("linear", inputs(adapters)), Path("/"))
    with pytest.raises(SourceError, match="is an adapter, and the merge has no base; write its model"):
        store.check(recipe)


def test_refactor_is_refused_without_a_base(store: WeightStore, experts: list[Path]):
    recipe = Merge("linear", (Input(Source(str(experts[0]))),), refactor=4)
    with pytest.raises(ConfigError, match="the adapter would stand on the merge's base, and it has none; write base:"):
        store.check(store.resolve(recipe, Path("/")))
