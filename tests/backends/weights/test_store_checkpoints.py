"""Merges of full checkpoints, against transformers' own loading and float64 numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from evomerge.backends.weights.artifact import CheckpointArtifact
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import CandidateError, ConfigError
from evomerge.recipe.groups import layer_of
from evomerge.recipe.tree import Input, Merge, Per, Source, sources
from evomerge.recipe.values import ByGroup, Gradient
from tests.backends.weights.family import Copy, Zoo, edit_tensors


def weights(folder: Path) -> dict[str, np.ndarray]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}


def inputs(folders: list[Path], *params: dict[str, Any]) -> tuple[Input, ...]:
    params = params or ({},) * len(folders)
    return tuple(Input(Source(str(folder)), own) for folder, own in zip(folders, params, strict=True))


def test_a_source_gives_back_exactly_what_transformers_loads(store: WeightStore, experts: list[Path], sharded: Path):
    for folder in (experts[1], sharded):
        recipe = store.resolve(Source(str(folder)), Path("/"))
        merged = dict(store.tensors(recipe))
        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
        assert merged.keys() == loaded.keys()
        for name, tensor in merged.items():
            assert tensor.dtype == loaded[name].dtype
            assert torch.equal(tensor, loaded[name])


def test_task_arithmetic_agrees_with_float64(store: WeightStore, zoo: Zoo, experts: list[Path]):
    recipe = Merge(
        "task_arithmetic",
        inputs(experts, {"weight": 0.5}, {"weight": -0.3}, {"weight": 1.1}),
        base=Source(str(zoo.base)),
        params={"scale": 0.7},
    )
    merged = dict(store.tensors(store.resolve(recipe, Path("/"))))
    base, *others = (weights(folder) for folder in (zoo.base, *experts))
    for name, tensor in merged.items():
        deltas = zip((0.5, -0.3, 1.1), others, strict=True)
        expected = base[name] + 0.7 * sum(weight * (other[name] - base[name]) for weight, other in deltas)
        assert tensor.dtype == torch.float32
        np.testing.assert_allclose(tensor.numpy(), expected, atol=1e-6)


def test_the_result_has_the_dtype_of_the_base_or_of_the_first_model(store: WeightStore, zoo: Zoo, experts: list[Path]):
    on_base = Merge("linear", inputs(experts[1:]), base=Source(str(zoo.base)))
    alone = Merge("linear", inputs(experts[1:]))
    assert {tensor.dtype for _, tensor in store.tensors(store.resolve(on_base, Path("/")))} == {torch.float32}
    assert {tensor.dtype for _, tensor in store.tensors(store.resolve(alone, Path("/")))} == {torch.bfloat16}


def test_the_result_is_rounded_once_to_nearest(store: WeightStore, zoo: Zoo, experts: list[Path]):
    recipe = store.resolve(Merge("linear", inputs([experts[1], experts[0]], {"weight": 1}, {"weight": 2})), Path("/"))
    first, second = weights(experts[1]), weights(experts[0])
    for name, tensor in store.tensors(recipe):
        expected = torch.from_numpy(first[name] / 3 + 2 * second[name] / 3).float()
        ulp = (tensor.float() - expected).abs() / expected.abs().clamp(min=1e-3)
        assert float(ulp.max()) <= 2**-8


def test_a_nested_merge_equals_its_steps(store: WeightStore, zoo: Zoo, experts: list[Path]):
    inner = Merge("linear", inputs(experts[:2]))
    outer = Merge("slerp", (Input(inner), Input(Source(str(experts[2])))), params={"t": 0.25})
    merged = dict(store.tensors(store.resolve(outer, Path("/"))))
    first, second, third = (weights(folder) for folder in experts)
    for name, tensor in merged.items():
        start, end = (first[name] + second[name]).ravel() / 2, third[name].ravel()
        cosine = start @ end / np.linalg.norm(start) / np.linalg.norm(end)
        expected = 0.75 * start + 0.25 * end
        if cosine <= 0.9995:
            angle = np.arccos(cosine)
            expected = (np.sin(0.75 * angle) * start + np.sin(0.25 * angle) * end) / np.sin(angle)
        np.testing.assert_allclose(tensor.float().numpy().ravel(), expected, atol=2e-6)


def test_random_masks_know_an_expert_by_its_contents_not_by_its_place(
    store: WeightStore, zoo: Zoo, experts: list[Path], copied: Copy
):
    moved = copied(experts[0])

    def merged(first: Path, second: Path):
        recipe = Merge("dare_linear", inputs([first, second]), base=Source(str(zoo.base)), seed=3)
        return dict(store.tensors(store.resolve(recipe, Path("/"))))

    one, other = merged(experts[0], experts[2]), merged(experts[2], moved)
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=1e-6)


def test_groups_and_gradients_reach_their_tensors(store: WeightStore, zoo: Zoo, experts: list[Path]):
    weight = ByGroup({"attention": 1.0, "rest": Gradient((0.0, 1.0))})
    recipe = Merge(
        "task_arithmetic",
        inputs(experts[:1], {"weight": weight}),
        base=Source(str(zoo.base)),
        per=Per(groups=("attention", "rest")),
    )
    merged = dict(store.tensors(store.resolve(recipe, Path("/"))))
    base, expert = weights(zoo.base), weights(experts[0])
    expected = {
        "model.embed_tokens.weight": 0.0,
        "model.layers.0.mlp.up_proj.weight": 0.0,
        "lm_head.weight": 1.0,
        "model.layers.1.mlp.up_proj.weight": 0.5,
        "model.layers.0.self_attn.q_proj.weight": 1.0,
    }
    for name, share in expected.items():
        np.testing.assert_allclose(merged[name].numpy(), base[name] + share * (expert[name] - base[name]), atol=1e-6)


def test_tied_weights_come_once_and_are_merged_as_the_embedding(store: WeightStore, tied: list[Path]):
    recipe = store.resolve(Merge("linear", inputs(tied)), Path("/"))
    merged = dict(store.tensors(recipe))
    assert "lm_head.weight" not in merged
    assert "lm_head.weight" not in store.layout(recipe).tensors
    first, second = (weights(folder)["model.embed_tokens.weight"] for folder in tied)
    np.testing.assert_allclose(merged["model.embed_tokens.weight"].numpy(), (first + second) / 2, atol=1e-6)


def test_a_head_that_is_stored_though_tied_is_left_out(store: WeightStore, tied: list[Path], copied: Copy):
    folder = copied(tied[0])
    edit_tensors(
        folder, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    )
    recipe = store.resolve(Source(str(folder)), Path("/"))
    store.check_values(recipe)
    assert "lm_head.weight" not in dict(store.tensors(recipe))


def test_an_expert_that_ties_its_head_gives_its_embedding_to_a_base_that_does_not(
    store: WeightStore, zoo: Zoo, tied: list[Path]
):
    recipe = store.resolve(Merge("task_arithmetic", inputs(tied[:1]), base=Source(str(zoo.base))), Path("/"))
    store.check(recipe)
    merged = dict(store.tensors(recipe))
    torch.testing.assert_close(merged["lm_head.weight"], merged["model.embed_tokens.weight"], atol=1e-6, rtol=0)


def test_tensors_that_hold_no_floats_are_the_bases(store: WeightStore, zoo: Zoo, experts: list[Path], copied: Copy):
    base = copied(zoo.base)
    edit_tensors(base, lambda tensors: tensors.update({"counter": torch.tensor([3, 4])}))
    recipe = store.resolve(Merge("linear", inputs(experts[:1]), base=Source(str(base))), Path("/"))
    store.check(recipe)
    assert "counter" not in store.layout(recipe).tensors
    assert dict(store.tensors(recipe))["counter"].tolist() == [3, 4]


def test_what_a_merge_becomes_is_known_in_advance(store: WeightStore, zoo: Zoo, experts: list[Path]):
    recipe = store.resolve(Merge("ties", inputs(experts), base=Source(str(zoo.base))), Path("/"))
    artifact = store.artifact(recipe)
    assert artifact == CheckpointArtifact(zoo.base, sum(t.nbytes for _, t in store.tensors(recipe)))
    assert store.memory(recipe) >= 4 * 22 * 16 * 5
    with pytest.raises(ConfigError, match="checkpoint"):
        store.low_rank(recipe)


def test_a_result_that_overflows_its_dtype_is_a_candidates_error(store: WeightStore, zoo: Zoo, experts: list[Path]):
    half = zoo.model("half", seed=7, dtype=torch.float16)
    recipe = Merge("task_arithmetic", inputs(experts[:1], {"weight": 1e8}), base=Source(str(half)))
    with pytest.raises(CandidateError, match="overflows float16"):
        dict(store.tensors(store.resolve(recipe, Path("/"))))


def test_tensors_are_in_natural_order(store: WeightStore, zoo: Zoo):
    deep = zoo.model("eleven", seed=1, num_hidden_layers=11, hidden_size=4, intermediate_size=4, head_dim=2)
    recipe = store.resolve(Source(str(deep)), Path("/"))
    layers = [layer for name in store.layout(recipe).tensors if (layer := layer_of(name)) is not None]
    assert layers == sorted(layers)
    assert layers[-1] == 10
    assert list(store.outline(recipe)) == [name for name, _ in store.tensors(recipe)]


def test_reading_twice_gives_the_same_bits_whatever_was_done_with_the_first(store: WeightStore, zoo: Zoo, copied: Copy):
    base = copied(zoo.base)
    edit_tensors(base, lambda tensors: tensors.update({"counter": torch.tensor([3, 4])}))
    recipe = store.resolve(Source(str(base)), Path("/"))
    for _, tensor in store.tensors(recipe):
        tensor.zero_()
    assert all(bool(tensor.abs().sum() > 0) for _, tensor in store.tensors(recipe))


def test_paths_count_from_the_root_and_come_back_as_written(store: WeightStore, zoo: Zoo, experts: list[Path]):
    recipe = Merge("linear", (Input(Source("./base")), Input(Source("math"))))
    resolved = store.resolve(recipe, zoo.root)
    assert [source.model for source in sources(resolved)] == [str(zoo.base), str(experts[0])]
    assert all(source.fingerprint for source in sources(resolved))
    written = store.as_written(resolved)
    assert [source.model for source in sources(written)] == ["./base", "math"]
    assert [source.fingerprint for source in sources(written)] == [source.fingerprint for source in sources(resolved)]
