"""Files of mergekit merged as they are, and full fine-tunes kept as adapters, as one uses them."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.cli.conftest import Command

SLICES = """\
# two layers of one model, then one of the other
merge_method: passthrough
dtype: float16
slices:
  - sources: [{model: models/one, layer_range: [0, 2]}]
  - sources: [{model: models/two, layer_range: [1, 2]}]
"""
ADAPTED = """\
merge_method: linear
models:
  - {model: models/base+adapters/short, parameters: {weight: 0.25}}
  - {model: models/one, parameters: {weight: [0.5, 0.75]}}
parameters: {normalize: false, int8_mask: true}
dtype: bfloat16
out_dtype: float32
"""
NAMED = """\
merge_method: slerp
base_model: models/base
models: [{model: both}]
parameters: {t: [{filter: mlp, value: 0.75}, {value: 0.25}]}
---
name: both
merge_method: linear
models: [{model: models/one, parameters: {weight: 1}}, {model: models/two, parameters: {weight: 1}}]
"""


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


def written(text: str) -> str:
    Path("their.yaml").write_text(text)
    return "their.yaml"


def test_slices_become_a_deeper_model(place: Path, command: Command) -> None:
    done = command("merge", written(SLICES), "out")
    assert (done.code, done.out, done.err) == (0, "merged into out\n", "")
    one, two, out = (tensors(place / name) for name in ("models/one", "models/two", "out"))
    name = "model.layers.{}.mlp.down_proj.weight"
    for here, there, model in ((0, 0, one), (1, 1, one), (2, 1, two)):
        assert torch.equal(out[name.format(here)], model[name.format(there)].half())
    model = AutoModelForCausalLM.from_pretrained("out", dtype="auto")
    assert (model.config.num_hidden_layers, model.dtype) == (3, torch.float16)


def test_models_with_adapters_are_merged_with_whole_ones(place: Path, command: Command) -> None:
    done = command("merge", written(ADAPTED), "out")
    assert done.code == 0
    assert done.out.startswith("note: their.yaml:5: parameters.int8_mask: is left out; it only saves memory there\n")
    base = AutoModelForCausalLM.from_pretrained("models/base", dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, "adapters/short").merge_and_unload().state_dict()
    one, out = tensors(place / "models" / "one"), tensors(place / "out")
    name = "model.layers.{}.self_attn.q_proj.weight"
    for layer, weight in ((0, 0.5), (1, 0.75)):
        here = name.format(layer)
        expected = 0.25 * adapted[here] + weight * one[here].float()
        assert out[here].dtype == torch.float32
        torch.testing.assert_close(out[here], expected, rtol=0, atol=1e-6)


def test_a_merge_of_adapted_models_alone_is_a_whole_model(command: Command, place: Path) -> None:
    text = "merge_method: task_arithmetic\nbase_model: models/base\nmodels: [{model: models/base+adapters/short}]\n"
    assert command("merge", written(text), "out").code == 0
    assert not (place / "out" / "adapter_config.json").exists()
    assert AutoModelForCausalLM.from_pretrained("out").num_parameters() > 0


def test_documents_that_use_each_other_are_one_merge(place: Path, command: Command) -> None:
    assert command("merge", written(NAMED), "out").code == 0
    recipe = (place / "out" / "recipe.yaml").read_text()
    assert "method: slerp" in recipe
    assert "method: linear" in recipe
    again = command("merge", "out/recipe.yaml", "again")
    assert again.code == 0
    ours, theirs = tensors(place / "out"), tensors(place / "again")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (SLICES.replace("[1, 2]", "[1, 3]"), "stack[1].layers: [1, 3] reaches beyond the 2 layers of"),
        (
            SLICES.replace("passthrough", "task_swapping"),
            "their.yaml:2: merge_method: there is no method 'task_swapping'",
        ),
        (ADAPTED.replace("[0.5, 0.75]", "lots"), "their.yaml:4: models[1].parameters.weight: must be a number"),
        (NAMED.replace("t: [", "s: ["), "parameters.s: no method of mergekit has this parameter"),
        (
            "merge_method: dare_ties\nbase_model: models/base\nmodels: [{model: models/one}]\nparameters: {density: 0}",
            "their.yaml: models[0].density: must be at least 0.001, and is 0",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(text: str, sentence: str, place: Path, command: Command) -> None:
    done = command("merge", written(text), "out")
    assert done.code == 78
    assert sentence in done.err
    assert not (place / "out").exists()


def test_a_fine_tune_is_kept_as_an_adapter_and_told_what_it_lacks(place: Path, command: Command) -> None:
    recipe = "method: task_arithmetic\nbase: models/base\nmodels: [{model: models/one}]\nrefactor: {rank: 2}\n"
    Path("recipe.yaml").write_text(recipe)
    done = command("merge", "recipe.yaml", "out")
    assert done.code == 0
    told = done.out.splitlines()
    assert told[0] == "merged into out"
    assert told[1].startswith("Rank 2 leaves out ")
    assert told[1] in (place / "out" / "README.md").read_text()
    assert json.loads((place / "out" / "adapter_config.json").read_text())["r"] == 2
    base = AutoModelForCausalLM.from_pretrained("models/base", dtype=torch.float32)
    assert PeftModel.from_pretrained(base, "out").peft_config["default"].base_model_name_or_path == "models/base"
