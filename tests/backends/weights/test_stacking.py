"""Stacks: every tensor is the right layer's, the export is the model that one would assemble by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from evomerge.backends.weights.artifact import CheckpointArtifact
from evomerge.backends.weights.export import export
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import ConfigError, SourceError
from evomerge.recipe.holes import Hole
from evomerge.recipe.tree import Input, Merge, Result, Slice, Source, Stack, recipe_id
from evomerge.recipe.values import Gradient
from tests.backends.weights.family import Copy, Zoo, edit_json

IDS = torch.tensor([[1, 5, 9, 13], [2, 3, 4, 6]])


@pytest.fixture(scope="session")
def deep(zoo: Zoo) -> list[Path]:
    """Two models of four and of five layers."""
    return [zoo.model("four", seed=21, num_hidden_layers=4), zoo.model("five", seed=22, num_hidden_layers=5)]


@pytest.fixture
def resolved(store: WeightStore, zoo: Zoo, deep: list[Path]):
    def resolve(recipe: Stack | Merge) -> Stack | Merge:
        found = store.resolve(recipe, zoo.root)
        assert not isinstance(found, Source)
        store.check(found)
        return found

    return resolve


FOUR, FIVE = Source("four"), Source("five")
CARD = Stack((Slice(FOUR, (0, 3)), Slice(FIVE, (1, 4))))


def loaded(folder: Path) -> Any:
    found: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    model, info = found
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def by_hand(folder: Path, layers: list[tuple[Path, int]]) -> Any:
    """A model with the embeddings and head of `folder` and these layers."""
    model: Any = LlamaForCausalLM.from_pretrained(folder)
    config = AutoConfig.from_pretrained(folder, num_hidden_layers=len(layers))
    built: Any = LlamaForCausalLM(config)
    state = {name: tensor for name, tensor in model.state_dict().items() if ".layers." not in name}
    for number, (other, layer) in enumerate(layers):
        for name, tensor in LlamaForCausalLM.from_pretrained(other).model.layers[layer].state_dict().items():
            state[f"model.layers.{number}.{name}"] = tensor
    built.load_state_dict(state)
    return built.eval()


def test_the_layers_of_two_models_follow_each_other(store: WeightStore, resolved: Any, deep: list[Path]):
    found = dict(store.tensors(resolved(CARD)))
    four, five = (LlamaForCausalLM.from_pretrained(folder).state_dict() for folder in deep)
    origins = [(four, 0), (four, 1), (four, 2), (five, 1), (five, 2), (five, 3)]
    rest = [name.removeprefix("model.layers.0.") for name in four if name.startswith("model.layers.0.")]
    for number, (state, layer) in enumerate(origins):
        for name in rest:
            assert torch.equal(found[f"model.layers.{number}.{name}"], state[f"model.layers.{layer}.{name}"])
    outside = {name for name in four if ".layers." not in name}
    assert found.keys() == outside | {f"model.layers.{n}.{name}" for n in range(6) for name in rest}
    assert all(torch.equal(found[name], four[name]) for name in outside)


def test_the_export_answers_as_the_model_assembled_by_hand(
    store: WeightStore, resolved: Any, deep: list[Path], tmp_path: Path
):
    artifact = export(store, resolved(CARD), tmp_path / "out")
    assert isinstance(artifact, CheckpointArtifact)
    assert artifact.size == sum(tensor.size for tensor in store.outline(resolved(CARD)).values())
    four, five = deep
    expected = by_hand(four, [(four, 0), (four, 1), (four, 2), (five, 1), (five, 2), (five, 3)])
    model = loaded(tmp_path / "out")
    assert model.config.num_hidden_layers == 6
    assert torch.equal(logits(model), logits(expected))


def test_a_layer_that_is_scaled_to_nothing_leaves_the_logits(
    store: WeightStore, resolved: Any, deep: list[Path], tmp_path: Path
):
    stack = Stack((Slice(FOUR, (0, 3)), Slice(FIVE, (2, 3), 0.0), Slice(FOUR, (3, 4))))
    export(store, resolved(stack), tmp_path / "out")
    model = loaded(tmp_path / "out")
    assert model.config.num_hidden_layers == 5
    assert model.model.layers[3].mlp.up_proj.weight.any()
    assert torch.equal(logits(model), logits(LlamaForCausalLM.from_pretrained(deep[0])))


def test_a_scale_is_that_of_what_attention_and_mlp_end_with(store: WeightStore, resolved: Any):
    whole, scaled = (
        dict(store.tensors(resolved(Stack((Slice(FOUR, (0, 2), scale), Slice(FIVE)))))) for scale in (1.0, 0.5)
    )
    changed = {name for name in whole if not torch.equal(whole[name], scaled[name])}
    ends = ("self_attn.o_proj", "mlp.down_proj")
    assert changed == {f"model.layers.{number}.{part}.weight" for number in (0, 1) for part in ends}
    assert all(torch.equal(whole[name] * 0.5, scaled[name]) for name in changed)


def test_what_stands_outside_the_layers_is_that_of_the_base_or_of_the_last_slice(
    store: WeightStore, resolved: Any, deep: list[Path]
):
    four, five = (LlamaForCausalLM.from_pretrained(folder).state_dict() for folder in deep)
    outside = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    for stack, origins in (
        (CARD, (four, four, four)),
        (replace(CARD, base=FIVE), (five, five, five)),
        (replace(CARD, head="last"), (four, five, five)),
    ):
        found = dict(store.tensors(resolved(stack)))
        assert all(torch.equal(found[name], origin[name]) for name, origin in zip(outside, origins, strict=True))


def test_layers_that_differ_by_their_numbers_are_merged_within_a_slice(
    store: WeightStore, resolved: Any, deep: list[Path]
):
    parts = tuple(Input(Stack((Slice(source, layers),))) for source, layers in ((FOUR, (0, 2)), (FIVE, (3, 5))))
    inner = Merge("linear", parts)
    found = dict(store.tensors(resolved(Stack((Slice(inner), Slice(FIVE, (0, 1)))))))
    four, five = (LlamaForCausalLM.from_pretrained(folder).state_dict() for folder in deep)
    name = "model.layers.{}.mlp.up_proj.weight"
    for number in range(2):
        mean = (four[name.format(number)] + five[name.format(number + 3)]) / 2
        torch.testing.assert_close(found[name.format(number)], mean)
    assert torch.equal(found[name.format(2)], five[name.format(0)])
    embedding = "model.embed_tokens.weight"
    torch.testing.assert_close(found[embedding], (four[embedding] + five[embedding]) / 2)


def test_depth_is_counted_within_a_slice(store: WeightStore, resolved: Any, deep: list[Path]):
    parts = tuple(
        Input(Stack((Slice(source, (1, 4)),)), {"weight": Gradient(points)})
        for source, points in ((FOUR, (1, 0)), (FIVE, (0, 1)))
    )
    found = dict(store.tensors(resolved(Stack((Slice(FOUR, (0, 1)), Slice(Merge("linear", parts)))))))
    four, five = (LlamaForCausalLM.from_pretrained(folder).state_dict() for folder in deep)
    name = "model.layers.{}.mlp.up_proj.weight"
    assert torch.equal(found[name.format(1)], four[name.format(1)])
    torch.testing.assert_close(found[name.format(2)], (four[name.format(2)] + five[name.format(2)]) / 2)
    assert torch.equal(found[name.format(3)], five[name.format(3)])


def test_layers_of_a_merge_of_whole_models_are_layers_of_that_merge(store: WeightStore, resolved: Any, zoo: Zoo):
    merge = Merge("linear", (Input(Source("base")), Input(FOUR)))
    with pytest.raises(SourceError, match=r"has the tensor model\.layers\.3"):
        resolved(merge)
    inner = Merge("linear", (Input(Source("base"), {"weight": Gradient((0, 1))}), Input(Source("base"))))
    whole = dict(store.tensors(resolved(inner)))
    found = dict(store.tensors(resolved(Stack((Slice(inner, (1, 3)), Slice(inner, (0, 1)))))))
    for here, there in ((0, 1), (1, 2), (2, 0)):
        name = "model.layers.{}.self_attn.q_proj.weight"
        assert torch.equal(found[name.format(here)], whole[name.format(there)])


def test_an_adapter_within_a_slice_counts_with_its_base(store: WeightStore, resolved: Any, adapters: list[Path]):
    adapted = Merge("task_arithmetic", (Input(Source(str(adapters[0]))),), Source("base"))
    whole = dict(store.tensors(resolved(adapted)))
    stack = resolved(Stack((Slice(adapted, (2, 3)), Slice(adapted, (0, 2)))))
    assert isinstance(store.artifact(stack), CheckpointArtifact)
    found = dict(store.tensors(stack))
    for here, there in ((0, 2), (1, 0), (2, 1)):
        name = "model.layers.{}.self_attn.q_proj.weight"
        assert torch.equal(found[name.format(here)], whole[name.format(there)])


def test_tied_heads_stay_tied(store: WeightStore, tied: list[Path], tmp_path: Path):
    sources = [Source(str(folder)) for folder in tied]
    stack = store.resolve(Stack((Slice(sources[0]), Slice(sources[1], (0, 1)))), Path("/"))
    store.check(stack)
    export(store, stack, tmp_path / "out")
    model = loaded(tmp_path / "out")
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_float_type_is_chosen_for_tensors_and_configuration(
    store: WeightStore, resolved: Any, tmp_path: Path, dtype: Any
):
    plain = dict(store.tensors(resolved(CARD)))
    chosen = resolved(replace(CARD, result=Result(dtype)))
    artifact = export(store, chosen, tmp_path / "out")
    assert artifact.size == sum(tensor.numel() * 2 for tensor in plain.values())
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    kind = getattr(torch, dtype)
    assert model.dtype == kind
    assert all(torch.equal(tensor, plain[name].to(kind)) for name, tensor in model.state_dict().items())


def test_a_merge_of_mixed_types_has_the_chosen_one(store: WeightStore, zoo: Zoo, experts: list[Path]):
    inputs = tuple(Input(Source(folder.name)) for folder in experts)
    plain = store.resolve(Merge("linear", inputs), zoo.root)
    half = store.resolve(Merge("linear", inputs, result=Result("bfloat16")), zoo.root)
    assert recipe_id(plain) != recipe_id(half)
    exact = dict(store.tensors(plain))
    assert all(torch.equal(tensor, exact[name].bfloat16()) for name, tensor in store.tensors(half))


def test_a_float_type_makes_a_checkpoint_of_a_merge_of_adapters(store: WeightStore, zoo: Zoo, adapters: list[Path]):
    merge = Merge("task_arithmetic", tuple(Input(Source(str(folder))) for folder in adapters), Source("base"))
    low, whole = (store.resolve(replace(merge, result=Result(dtype)), zoo.root) for dtype in (None, "base"))
    assert not isinstance(store.artifact(low), CheckpointArtifact)
    assert isinstance(store.artifact(whole), CheckpointArtifact)
    with pytest.raises(ConfigError, match="becomes a checkpoint"):
        store.low_rank(whole)
    assert all(torch.equal(tensor, dict(store.tensors(whole))[name]) for name, tensor in store.tensors(low))


@pytest.mark.parametrize(
    ("stack", "sentence"),
    [
        (Stack((Slice(FOUR, (0, 5)),)), r"stack\[0\]\.layers: \[0, 5\] reaches beyond the 4 layers of .*four; end"),
        (Stack((Slice(FOUR), Slice(Source("broad")))), r"stack\[1\]: .*broad.* of shape .*; stack only layers of"),
        (Stack((Slice(FOUR), Slice(Source("heads")))), r"heads/config.json: num_attention_heads is 4, and in .* is 2"),
        (Stack((Slice(Source("lora")),)), "is an adapter, and the recipe names no model"),
        (
            Merge("task_arithmetic", (Input(Source("lora")),), Stack((Slice(FOUR, (0, 3)),))),
            "lora is an adapter for the layers of a whole model, and the base is a stack",
        ),
        (
            Stack((Slice(Merge("linear", (Input(FOUR),), result=Result("float16"))),)),
            "dtype: it is written within a recipe",
        ),
        (
            Merge("linear", (Input(Stack((Slice(FOUR, (0, 2)),))), Input(Stack((Slice(FIVE, (0, 3)),))))),
            "has the tensor model.layers.2",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_with_the_fix(
    store: WeightStore, zoo: Zoo, deep: list[Path], stack: Stack | Merge, sentence: str
):
    if not (zoo.root / "broad").exists():
        zoo.model("broad", seed=5, intermediate_size=32)
        zoo.model("heads", seed=5, num_attention_heads=4, head_dim=8)
        zoo.adapter("lora", seed=5)
    recipe = store.resolve(stack, zoo.root)
    with pytest.raises(SourceError if "dtype" not in sentence else ConfigError, match=sentence):
        store.check(recipe)


def test_a_scale_that_is_a_hole_can_be_checked_and_not_merged(store: WeightStore, resolved: Any):
    stack = resolved(Stack((Slice(FOUR, (0, 2), Hole(0, 1)),)))
    assert store.layout(stack).layers == 2
    with pytest.raises(ConfigError, match="scale of a slice is still a hole"):
        store.artifact(stack)


def test_layers_whose_names_do_not_tell_are_refused(store: WeightStore, deep: list[Path], copied: Copy):
    folder = copied(deep[0])
    edit_json(folder / "config.json", num_hidden_layers=7)
    stack = store.resolve(Stack((Slice(Source(str(folder)), (0, 1)),)), Path("/"))
    with pytest.raises(SourceError, match="do not tell which are the 7 layers"):
        store.check(stack)


def test_mergekit_is_told_of_stacks_that_it_can_make(store: WeightStore, resolved: Any, tmp_path: Path):
    export(store, resolved(replace(CARD, head="last")), tmp_path / "out")
    told = yaml.safe_load((tmp_path / "out" / "mergekit.yaml").read_text())
    assert told == {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": "four", "layer_range": [0, 3]}]},
            {"sources": [{"model": "five", "layer_range": [1, 4]}]},
        ],
        "dtype": "float32",
        "out_dtype": "float32",
    }
    export(store, resolved(CARD), tmp_path / "other")
    assert not (tmp_path / "other" / "mergekit.yaml").exists()
    assert "from the first slice" in (tmp_path / "other" / "README.md").read_text()


def test_mergekit_is_told_of_scales_by_filters(store: WeightStore, resolved: Any, tmp_path: Path):
    export(store, resolved(Stack((Slice(FOUR),), head="last")), tmp_path / "whole")
    assert "numbers of every slice" in (tmp_path / "whole" / "README.md").read_text()
    export(store, resolved(Stack((Slice(FOUR, (0, 1), 0.5),))), tmp_path / "out")
    told = yaml.safe_load((tmp_path / "out" / "mergekit.yaml").read_text())
    (source,) = told["slices"][0]["sources"]
    assert source["parameters"]["scale"] == [
        {"filter": "o_proj", "value": 0.5},
        {"filter": "down_proj", "value": 0.5},
        {"value": 1.0},
    ]
