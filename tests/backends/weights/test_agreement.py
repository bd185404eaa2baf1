"""Models that do not fit are refused before anything is spent, with the file, the tensor or token, and the fix."""

from pathlib import Path
from typing import Any, Protocol

import pytest
import torch

from evomerge.backends.weights.store import WeightStore
from evomerge.errors import ConfigError, SourceError
from evomerge.recipe.holes import Hole
from evomerge.recipe.tree import Input, Merge, Source
from tests.backends.weights.family import Copy, Zoo, edit_json, edit_tensors


class Check(Protocol):
    def __call__(self, model: Path, base: Path | None = None, method: Any = ..., **more: Any) -> None: ...


@pytest.fixture
def check(store: WeightStore, zoo: Zoo):
    def check(model: Path, base: Path | None = None, method: Any = "task_arithmetic", **more: Any) -> None:
        recipe = Merge(
            method, (Input(Source(str(model)), {"weight": Hole(0, 1)}),), base=Source(str(base or zoo.base)), **more
        )
        store.check(store.resolve(recipe, Path("/")))

    return check


def test_models_of_one_family_fit_with_holes_open(
    check: Check, experts: list[Path], adapters: list[Path], sharded: Path
):
    for model in (*experts, *adapters, sharded):
        check(model)
    check(experts[0], method=Hole(choices=("ties", "linear")))


def test_another_shape_is_refused_with_both_shapes_and_files(check: Check, experts: list[Path], copied: Copy):
    folder = copied(experts[0])
    edit_tensors(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(8)}))
    with pytest.raises(
        SourceError, match=r"math/model\.safetensors: .*model\.norm\.weight has shape \[8\].*base/.*\[16\]"
    ):
        check(folder)


def test_another_width_is_refused(check: Check, zoo: Zoo):
    with pytest.raises(SourceError, match=r"narrow.*shape"):
        check(zoo.model("narrow", seed=1, intermediate_size=8))


def test_another_number_of_heads_is_refused_though_all_shapes_agree(check: Check, zoo: Zoo):
    with pytest.raises(
        SourceError, match=r"heads/config\.json: num_attention_heads is 4, and in .*base/config\.json it is 2"
    ):
        check(zoo.model("heads", seed=1, num_attention_heads=4, num_key_value_heads=2, head_dim=4))


def test_a_missing_tensor_is_refused(check: Check, experts: list[Path], copied: Copy):
    folder = copied(experts[0])
    edit_tensors(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(
        SourceError, match=r"math has no tensor model\.layers\.1\.mlp\.up_proj\.weight, which is in .*base"
    ):
        check(folder)


def test_a_missing_head_is_refused_unless_the_model_ties_it(check: Check, experts: list[Path], copied: Copy):
    folder = copied(experts[0])
    edit_tensors(folder, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(SourceError, match=r"no tensor lm_head\.weight"):
        check(folder)


def test_a_tensor_too_many_is_refused(check: Check, zoo: Zoo, tied: list[Path]):
    with pytest.raises(SourceError, match=r"deep/.* has the tensor model\.layers\.3\."):
        check(zoo.model("deep", seed=1, num_hidden_layers=4))
    with pytest.raises(SourceError, match=r"base/.* has its own lm_head\.weight, which .*tied1 ties"):
        check(zoo.base, base=tied[0])


def test_another_tokenizer_is_refused_with_the_first_token_that_differs(check: Check, zoo: Zoo):
    words = [f"word{number}" for number in range(20)]
    words[3], words[4] = words[4], words[3]
    with pytest.raises(
        SourceError, match=r"swapped has another tokenizer than .*base: the token 'word3' has number 6 there and 5 here"
    ):
        check(zoo.model("swapped", seed=1, words=words))


def test_an_adapter_made_for_another_model_is_refused(check: Check, zoo: Zoo, adapters: list[Path], tied: list[Path]):
    narrow = zoo.model("narrow", seed=1, intermediate_size=8)
    with pytest.raises(
        SourceError, match=r"wide/adapter_model\.safetensors changes .*mlp\.\w+\.weight as if its shape were"
    ):
        check(adapters[1], base=narrow)
    shallow = zoo.model("shallow", seed=1, num_hidden_layers=2)
    with pytest.raises(SourceError, match=r"changes model\.layers\.2\..* which is not there; give the model"):
        check(adapters[1], base=shallow)


def test_an_adapter_of_a_tied_head_is_refused(check: Check, zoo: Zoo, tied: list[Path]):
    adapter = zoo.adapter("head", seed=1, targets=("lm_head",))
    check(adapter)
    with pytest.raises(SourceError, match=r"changes lm_head\.weight of .*tied1, which is tied to the embedding"):
        check(adapter, base=tied[0])


def test_an_adapter_is_no_base(check: Check, adapters: list[Path], experts: list[Path]):
    with pytest.raises(SourceError, match="is an adapter where a full checkpoint is needed"):
        check(experts[0], base=adapters[0])


def test_a_rank_below_one_is_refused(check: Check, adapters: list[Path]):
    with pytest.raises(ConfigError, match="refactor: the rank must be at least 1"):
        check(adapters[0], refactor=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_found(
    store: WeightStore, zoo: Zoo, experts: list[Path], copied: Copy, value: Any
):
    folder = copied(experts[1])
    edit_tensors(folder, lambda tensors: tensors["model.norm.weight"].__setitem__(3, value))
    recipe = store.resolve(Merge("linear", (Input(Source(str(folder))),), base=Source(str(zoo.base))), Path("/"))
    store.check(recipe)
    with pytest.raises(
        SourceError, match=r"code/model\.safetensors: the tensor model\.norm\.weight holds NaN or infinite"
    ):
        store.check_values(recipe)


def test_values_of_adapters_are_looked_at_too(store: WeightStore, zoo: Zoo, adapters: list[Path], copied: Copy):
    folder = copied(adapters[0])
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    edit_tensors(folder, lambda tensors: tensors[name].fill_(float("nan")))
    recipe = store.resolve(Merge("linear", (Input(Source(str(folder))),), base=Source(str(zoo.base))), Path("/"))
    with pytest.raises(SourceError, match=r"adapter_model\.safetensors: the tensor .*q_proj\.lora_A\.weight holds NaN"):
        store.check_values(recipe)


def test_sound_values_pass(store: WeightStore, zoo: Zoo, experts: list[Path], adapters: list[Path]):
    recipe = Merge("linear", tuple(Input(Source(str(f))) for f in (*experts, *adapters)), base=Source(str(zoo.base)))
    store.check_values(store.resolve(recipe, Path("/")))


def test_a_head_that_differs_though_it_should_be_tied_is_found(store: WeightStore, tied: list[Path], copied: Copy):
    folder = copied(tied[0])
    edit_tensors(folder, lambda tensors: tensors.update({"lm_head.weight": torch.ones(22, 16)}))
    with pytest.raises(SourceError, match=r"says tie_word_embeddings, and lm_head\.weight differs"):
        store.check_values(store.resolve(Source(str(folder)), Path("/")))


def test_a_quantised_model_is_refused(check: Check, experts: list[Path], copied: Copy):
    folder = copied(experts[0])
    edit_json(folder / "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(SourceError, match=r"config\.json: the model is quantised"):
        check(folder)


def test_a_model_whose_file_was_cut_off_is_refused(check: Check, experts: list[Path], copied: Copy):
    folder = copied(experts[0])
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(SourceError, match=r"math/model\.safetensors was cut off: 100 bytes"):
        check(folder)


def test_integers_where_floats_belong_are_refused(check: Check, experts: list[Path], copied: Copy):
    folder = copied(experts[0])
    edit_tensors(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(16, dtype=torch.int8)}))
    with pytest.raises(SourceError, match=r"model\.norm\.weight is I8, and in .* it is F32"):
        check(folder)
