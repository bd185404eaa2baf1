"""An exported folder loads with transformers or peft and is what was scored; it appears whole or not at all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.backends.weights.artifact import AdapterArtifact, CheckpointArtifact
from evomerge.backends.weights.export import export, free_bytes
from evomerge.backends.weights.headers import read_header
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import CandidateError, ConfigError
from evomerge.recipe.tree import Input, Merge, Source, recipe_id, sources
from tests.backends.weights.family import Copy, Zoo, edit_json, edit_tensors

IDS = torch.tensor([[1, 5, 9, 13], [2, 3, 4, 6]])


def loaded_with_report(folder: Path) -> tuple[Any, dict[str, Any]]:
    found: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    return found


@pytest.fixture
def merge(store: WeightStore, zoo: Zoo, experts: list[Path]):
    recipe = Merge(
        "task_arithmetic", (Input(Source("math"), {"weight": 0.5}), Input(Source("code"))), base=Source("./base")
    )
    return store.resolve(recipe, zoo.root)


@pytest.fixture
def joined(store: WeightStore, zoo: Zoo, adapters: list[Path]):
    inputs = tuple(
        Input(Source(folder.name), {"weight": w}) for folder, w in zip(adapters, (0.5, -0.75, 2.0), strict=True)
    )
    return store.resolve(Merge("task_arithmetic", inputs, base=Source("./base")), zoo.root)


def test_a_checkpoint_loads_with_transformers_and_is_what_was_scored(store: WeightStore, merge: Merge, tmp_path: Path):
    artifact = export(store, merge, tmp_path / "deep" / "out")
    assert isinstance(artifact, CheckpointArtifact)
    model, info = loaded_with_report(tmp_path / "deep" / "out")
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    scored, loaded = dict(store.tensors(merge)), model.state_dict()
    assert scored.keys() == loaded.keys()
    assert all(
        torch.equal(tensor, loaded[name]) and tensor.dtype == loaded[name].dtype for name, tensor in scored.items()
    )


def test_shards_have_an_index_and_load_the_same(store: WeightStore, merge: Merge, tmp_path: Path):
    export(store, merge, tmp_path / "one")
    export(store, merge, tmp_path / "many", shard_bytes=5000)
    files = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(files) > 3
    assert all(file.stat().st_size < 5000 + 2000 for file in files)
    with safe_open(files[0], framework="pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    one, many = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("one", "many"))
    assert all(torch.equal(one[name], many[name]) for name in one)


def test_a_tied_checkpoint_loads_tied(store: WeightStore, tied: list[Path], tmp_path: Path):
    recipe = store.resolve(Merge("linear", tuple(Input(Source(str(folder))) for folder in tied)), Path("/"))
    export(store, recipe, tmp_path / "out")
    model, info = loaded_with_report(tmp_path / "out")
    assert not info["missing_keys"]
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_mixed_types_are_aligned_and_kept(store: WeightStore, zoo: Zoo, copied: Copy, tmp_path: Path):
    base = copied(zoo.base)
    edit_tensors(
        base,
        lambda t: t.update({"a": torch.ones(3, dtype=torch.bool), "b": torch.ones(5).half(), "n": torch.arange(3)}),
    )
    recipe = store.resolve(Source(str(base)), Path("/"))
    export(store, recipe, tmp_path / "out")
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as opened:
        for name, tensor in store.tensors(recipe):
            assert torch.equal(opened.get_tensor(name), tensor)
    written = tmp_path / "out" / "model.safetensors"
    assert set(read_header(written)) == set(store.outline(recipe))
    length = int.from_bytes(written.read_bytes()[:8], "little")
    header = json.loads(written.read_bytes()[8 : 8 + length])
    widths = {"F32": 4, "F16": 2, "I64": 8, "BOOL": 1}
    for name, entry in header.items():
        if name != "__metadata__":
            assert (8 + length + entry["data_offsets"][0]) % widths[entry["dtype"]] == 0


def test_an_adapter_loads_with_peft_and_answers_as_the_exact_sum(
    store: WeightStore, zoo: Zoo, adapters: list[Path], joined: Merge, tmp_path: Path
):
    artifact = export(store, joined, tmp_path / "out")
    assert isinstance(artifact, AdapterArtifact)
    with torch.inference_mode():
        found = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(zoo.base), tmp_path / "out")(IDS).logits
        model = AutoModelForCausalLM.from_pretrained(zoo.base, dtype=torch.float64)
        whole = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for adapter, weight in zip(adapters, (0.5, -0.75, 2.0), strict=True):
            fresh = AutoModelForCausalLM.from_pretrained(zoo.base, dtype=torch.float64)
            peft = PeftModel.from_pretrained(fresh, adapter, autocast_adapter_dtype=False).double()
            one = peft.merge_and_unload().state_dict()
            for name, start in model.state_dict().items():
                whole[name] += weight * (one[name] - start)
        model.load_state_dict(whole)
        expected = model(IDS).logits
        base = AutoModelForCausalLM.from_pretrained(zoo.base)(IDS).logits
    assert float((expected - base).abs().max()) > 0.1
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-4)


def test_an_exported_adapter_reads_back_as_itself_with_scale_one(
    store: WeightStore, joined: Merge, zoo: Zoo, tmp_path: Path
):
    export(store, joined, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "./base"
    assert config["r"] == config["lora_alpha"] == 11
    assert config["rank_pattern"] == config["alpha_pattern"]
    assert config["target_modules"] == sorted(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    again = store.resolve(
        Merge("linear", (Input(Source(str(tmp_path / "out"))),), base=Source(str(zoo.base))), Path("/")
    )
    for module, low in store.low_rank(again).items():
        scored = store.low_rank(joined)[module]
        assert torch.equal(low.a, scored.a)
        assert torch.equal(low.b, scored.b)


def test_targets_are_written_in_full_where_short_names_would_take_more(store: WeightStore, zoo: Zoo, tmp_path: Path):
    adapter = zoo.adapter("first", seed=1, targets=("q_proj",), layers_to_transform=[0])
    recipe = store.resolve(Merge("linear", (Input(Source(str(adapter))),), base=Source(str(zoo.base))), Path("/"))
    export(store, recipe, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["model.layers.0.self_attn.q_proj"]
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(zoo.base), tmp_path / "out")


def test_tokenizer_chat_template_and_configuration_come_along(
    store: WeightStore, merge: Merge, joined: Merge, zoo: Zoo, tmp_path: Path
):
    for recipe, name in ((merge, "whole"), (joined, "adapter")):
        export(store, recipe, tmp_path / name)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / name)
        original = AutoTokenizer.from_pretrained(zoo.base)
        assert tokenizer("word3 word7").input_ids == original("word3 word7").input_ids
        assert tokenizer.chat_template == original.chat_template
    assert (tmp_path / "whole" / "generation_config.json").exists()
    assert not (tmp_path / "adapter" / "config.json").exists()


def test_the_recipe_reads_back_as_the_same_recipe(store: WeightStore, merge: Merge, zoo: Zoo, tmp_path: Path):
    export(store, merge, tmp_path / "out")
    written = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())["recipe"]
    assert written == {
        "method": "task_arithmetic",
        "base": "./base",
        "models": [{"model": "math", "weight": 0.5}, {"model": "code"}],
    }
    again = Merge(
        written["method"], (Input(Source("math"), {"weight": 0.5}), Input(Source("code"))), base=Source("./base")
    )
    assert recipe_id(store.resolve(again, zoo.root)) == recipe_id(merge)
    assert next(sources(merge)).fingerprint in (tmp_path / "out" / "recipe.yaml").read_text()


def test_the_card_names_models_tags_and_library(store: WeightStore, merge: Merge, joined: Merge, tmp_path: Path):
    for recipe, name, library in ((merge, "whole", "transformers"), (joined, "adapter", "peft")):
        export(store, recipe, tmp_path / name, card="## Scores\n\nIt won.")
        text = (tmp_path / name / "README.md").read_text()
        header = yaml.safe_load(text.split("---")[1])
        assert header["library_name"] == library
        assert {"merge", "evomerge"} <= set(header["tags"])
        assert header["base_model"][0] == "./base"
        assert text.endswith("## Scores\n\nIt won.\n")
        assert "`mergekit.yaml` says the same" in text if name == "whole" else "There is no mergekit.yaml: " in text


def test_adapters_are_never_said_to_mergekit_even_where_they_become_a_whole_model(
    store: WeightStore, zoo: Zoo, adapters: list[Path], tmp_path: Path
):
    inputs = tuple(Input(Source(str(folder))) for folder in adapters)
    recipe = store.resolve(Merge("ties", inputs, base=Source(str(zoo.base))), Path("/"))
    assert isinstance(export(store, recipe, tmp_path / "out"), CheckpointArtifact)
    assert not (tmp_path / "out" / "mergekit.yaml").exists()
    assert "There is no mergekit.yaml: mergekit merges whole models" in (tmp_path / "out" / "README.md").read_text()


def test_nothing_tells_of_paths_that_nobody_wrote(
    store: WeightStore, zoo: Zoo, merge: Merge, joined: Merge, copied: Copy
):
    base = copied(zoo.base)
    edit_json(base / "config.json", _name_or_path="/home/somebody/secret")
    edit_json(base / "tokenizer_config.json", name_or_path="/home/somebody/secret")
    tmp_path = base.parent
    scrubbed = store.resolve(Source("base"), tmp_path)
    for recipe, name in ((merge, "whole"), (joined, "adapter"), (scrubbed, "scrubbed")):
        export(store, recipe, tmp_path / name)
        for file in (tmp_path / name).iterdir():
            content = file.read_bytes()
            assert str(zoo.root).encode() not in content, file
            assert b"somebody" not in content, file


def test_a_folder_that_holds_something_is_not_touched(store: WeightStore, merge: Merge, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="out exists already; choose another folder"):
        export(store, merge, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    with pytest.raises(ConfigError, match=r"thesis\.txt exists already"):
        export(store, merge, tmp_path / "out" / "thesis.txt")


def test_an_empty_folder_may_be_filled(store: WeightStore, merge: Merge, tmp_path: Path):
    (tmp_path / "out").mkdir()
    export(store, merge, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_a_disk_too_full_is_noticed_before_anything_is_written(store: WeightStore, merge: Merge, tmp_path: Path):
    needed = store.artifact(merge).size
    with pytest.raises(ConfigError, match=rf"out: the export needs \d+ bytes and {needed} are free"):
        export(store, merge, tmp_path / "out", free=lambda _: needed)
    assert not any(file.name.startswith((".out", "out")) for file in tmp_path.iterdir())
    assert free_bytes(tmp_path / "not" / "yet") > 0


def test_a_recipe_that_cannot_be_computed_leaves_nothing(
    store: WeightStore, zoo: Zoo, experts: list[Path], tmp_path: Path
):
    half = zoo.model("half", seed=7, dtype=torch.float16)
    recipe = Merge("task_arithmetic", (Input(Source(str(experts[0])), {"weight": 1e8}),), base=Source(str(half)))
    with pytest.raises(CandidateError):
        export(store, store.resolve(recipe, Path("/")), tmp_path / "out")
    assert not any(file.name.startswith((".out", "out")) for file in tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_said_so(store: WeightStore, merge: Merge, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/out cannot be written \(Not a directory\)"):
        export(store, merge, tmp_path / "file" / "out")


def test_a_model_without_floating_point_numbers_is_not_said_to_mergekit(
    store: WeightStore, zoo: Zoo, copied: Copy, tmp_path: Path
):
    folder = copied(zoo.base)
    edit_tensors(folder, lambda tensors: tensors.update({name: t.to(torch.int8) for name, t in tensors.items()}))
    export(store, store.resolve(Source(str(folder)), zoo.root), tmp_path / "out")
    assert not (tmp_path / "out" / "mergekit.yaml").exists()
    assert "no floating-point tensor" in (tmp_path / "out" / "README.md").read_text()
