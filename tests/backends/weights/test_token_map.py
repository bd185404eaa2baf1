"""Models of different vocabularies: rows are matched by tokens, and the result has the tokenizer that was chosen."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from evomerge.backends.weights.artifact import CheckpointArtifact
from evomerge.backends.weights.export import export
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import ConfigError, SourceError
from evomerge.recipe.tree import Input, Merge, Result, Slice, Source, Stack, WeightRecipe
from tests.backends.weights.family import UNKNOWN, WORDS, Copy, Zoo, edit_json, make_tokenizer

BASE, MORE, FEWER, CHAT = Source("base"), Source("more"), Source("fewer"), Source("chatty")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
ADDED = ("<|user|>", "<|bot|>")


@pytest.fixture(scope="session")
def tongues(zoo: Zoo) -> Zoo:
    """A model with two words more in another order, one with fewer and padding, one with two tokens added."""
    words = [*reversed(WORDS), "extra", "other"]
    zoo.model("more", seed=31, words=words, vocab_size=24)
    zoo.model("fewer", seed=32, words=WORDS[:15], vocab_size=20)
    folder = zoo.model("chatty", seed=33, vocab_size=26)
    tokenizer = make_tokenizer(WORDS)
    tokenizer.add_special_tokens({"additional_special_tokens": list(ADDED)})
    tokenizer.save_pretrained(folder)
    return zoo


def tokens(folder: Path) -> dict[str, int]:
    found: dict[str, int] = AutoTokenizer.from_pretrained(folder).get_vocab()
    return found


def rows(folder: Path, name: str) -> dict[str, torch.Tensor]:
    table = load_file(folder / "model.safetensors")[name]
    return {token: table[number] for token, number in tokens(folder).items()}


def mean(*models: Source, source: Any) -> Merge:
    return Merge("linear", tuple(Input(model) for model in models), result=Result(tokenizer=source))


def resolved(store: WeightStore, zoo: Zoo, recipe: WeightRecipe) -> WeightRecipe:
    found = store.resolve(recipe, zoo.root)
    store.check(found)
    store.check_values(found)
    return found


@pytest.mark.parametrize("name", [EMBEDDING, HEAD])
def test_rows_are_matched_by_token_and_lacking_ones_are_the_bases(store: WeightStore, tongues: Zoo, name: str):
    found = dict(store.tensors(resolved(store, tongues, mean(BASE, MORE, FEWER, source="base"))))[name]
    base, more, fewer = (rows(tongues.root / model.model, name) for model in (BASE, MORE, FEWER))
    assert found.shape == (22, 16)
    for token, number in tokens(tongues.base).items():
        expected = (base[token] + more[token] + fewer.get(token, base[token])) / 3
        torch.testing.assert_close(found[number], expected)


def test_other_tensors_are_merged_as_ever(store: WeightStore, tongues: Zoo):
    found = dict(store.tensors(resolved(store, tongues, mean(BASE, MORE, source="base"))))
    base, more = (load_file(tongues.root / name / "model.safetensors") for name in ("base", "more"))
    for name in found.keys() - {EMBEDDING, HEAD}:
        torch.testing.assert_close(found[name], (base[name] + more[name]) / 2)


def test_a_token_that_the_base_lacks_is_that_of_the_first_model_that_has_it(store: WeightStore, tongues: Zoo):
    found = dict(store.tensors(resolved(store, tongues, mean(BASE, FEWER, MORE, source=MORE))))[EMBEDDING]
    more = rows(tongues.root / "more", EMBEDDING)
    numbers = tokens(tongues.root / "more")
    for token in ("extra", "other"):
        torch.testing.assert_close(found[numbers[token]], more[token])
    base, fewer = (rows(tongues.root / model.model, EMBEDDING) for model in (BASE, FEWER))
    for token in (WORDS[0], WORDS[19], UNKNOWN):
        expected = (base[token] + fewer.get(token, base[token]) + more[token]) / 3
        torch.testing.assert_close(found[numbers[token]], expected)


def test_padding_is_that_of_the_model_whose_tokenizer_it_is(store: WeightStore, tongues: Zoo):
    found = dict(store.tensors(resolved(store, tongues, mean(BASE, FEWER, source=FEWER))))[EMBEDDING]
    own = load_file(tongues.root / "fewer" / "model.safetensors")[EMBEDDING]
    assert found.shape == own.shape
    torch.testing.assert_close(found[17:], own[17:])


@pytest.mark.parametrize(("source", "size"), [("base", 22), (MORE, 24)])
def test_the_export_has_the_chosen_tokenizer_and_loads(
    store: WeightStore, tongues: Zoo, tmp_path: Path, source: Any, size: int
):
    recipe = resolved(store, tongues, mean(BASE, MORE, source=source))
    artifact = export(store, recipe, tmp_path / "out")
    assert isinstance(artifact, CheckpointArtifact)
    chosen = tongues.base if source == "base" else tongues.root / "more"
    assert tokens(tmp_path / "out") == tokens(chosen)
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    model, info = loaded
    assert not info["missing_keys"]
    assert model.config.vocab_size == size
    assert model.get_input_embeddings().weight.shape[0] == size
    assert "vocabularies to each other in a way of its own" in (tmp_path / "out" / "README.md").read_text()


def test_special_tokens_are_numbered_as_in_the_chosen_tokenizer(store: WeightStore, tongues: Zoo, copied: Copy):
    folder = copied(tongues.root / "more")
    edit_json(folder / "config.json", eos_token_id=7, pad_token_id=3)
    other = Source(str(folder))
    for source, expected in (("base", 1), (other, 7)):
        artifact = store.artifact(resolved(store, tongues, mean(BASE, other, source=source)))
        assert isinstance(artifact, CheckpointArtifact)
        config = artifact.config or json.loads((artifact.skeleton / "config.json").read_text())
        assert config["eos_token_id"] == expected
        assert artifact.behaviour == (tongues.base if source == "base" else folder)


def test_the_union_has_the_bases_tokens_and_those_that_others_added(
    store: WeightStore, tongues: Zoo, tmp_path: Path, own_cache: Path
):
    recipe = resolved(store, tongues, mean(BASE, CHAT, source="union"))
    export(store, recipe, tmp_path / "out")
    base = tokens(tongues.base)
    assert tokens(tmp_path / "out") == base | {token: 22 + index for index, token in enumerate(ADDED)}
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.encode("word1 <|user|> word2") == [base["word1"], 22, base["word2"]]
    assert tokenizer.decode([22, base["word2"]], skip_special_tokens=True) == "word2"
    assert tokenizer.chat_template == make_tokenizer(WORDS).chat_template
    chat, merged = (
        load_file(folder / "model.safetensors")[EMBEDDING] for folder in (tongues.root / "chatty", tmp_path / "out")
    )
    assert merged.shape == (24, 16)
    assert torch.equal(merged[22:], chat[22:24])
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.vocab_size == 24
    assert len(list((own_cache / "tokenizers").iterdir())) == 1


def test_the_union_of_tokenizers_that_are_the_same_is_that_tokenizer(
    store: WeightStore, tongues: Zoo, experts: list[Path]
):
    recipe = resolved(store, tongues, mean(BASE, Source("math"), source="union"))
    artifact = store.artifact(recipe)
    assert isinstance(artifact, CheckpointArtifact)
    assert artifact.behaviour == tongues.base
    plain = store.resolve(Merge("linear", (Input(BASE), Input(Source("math")))), tongues.root)
    assert all(torch.equal(tensor, dict(store.tensors(plain))[name]) for name, tensor in store.tensors(recipe))


def test_task_vectors_of_lacking_tokens_are_zero(store: WeightStore, tongues: Zoo):
    merge = Merge("task_arithmetic", (Input(FEWER), Input(MORE)), BASE, {"scale": 0.5}, result=Result(tokenizer="base"))
    found = dict(store.tensors(resolved(store, tongues, merge)))[EMBEDDING]
    base, more, fewer = (rows(tongues.root / model.model, EMBEDDING) for model in (BASE, MORE, FEWER))
    for token, number in tokens(tongues.base).items():
        expected = base[token] + 0.5 * (more[token] - base[token] + fewer.get(token, base[token]) - base[token])
        torch.testing.assert_close(found[number], expected)


def test_models_of_other_types_lend_their_rows_exactly(store: WeightStore, tongues: Zoo):
    if not (tongues.root / "half").exists():
        tongues.model("half", seed=34, words=WORDS[:10], vocab_size=12, dtype=torch.bfloat16)
    found = dict(store.tensors(resolved(store, tongues, mean(Source("half"), BASE, source=BASE))))[EMBEDDING]
    base, half = (rows(tongues.root / name, EMBEDDING) for name in ("base", "half"))
    for token, number in tokens(tongues.base).items():
        own = half[token].float() if token in half else base[token]
        torch.testing.assert_close(found[number], ((own + base[token]) / 2).to(found.dtype), rtol=0, atol=1e-2)


def test_a_stack_of_models_of_different_vocabularies_has_the_chosen_one(
    store: WeightStore, tongues: Zoo, tmp_path: Path
):
    stack = Stack((Slice(MORE, (0, 2)), Slice(FEWER, (1, 3))), head="last", result=Result(tokenizer=FEWER))
    export(store, resolved(store, tongues, stack), tmp_path / "out")
    model: Any = LlamaForCausalLM.from_pretrained(tmp_path / "out")
    assert (model.config.num_hidden_layers, model.config.vocab_size) == (4, 20)
    state = model.state_dict()
    more, fewer = rows(tongues.root / "more", EMBEDDING), rows(tongues.root / "fewer", HEAD)
    for token, number in tokens(tongues.root / "fewer").items():
        assert torch.equal(state[EMBEDDING][number], more[token])
        assert torch.equal(state[HEAD][number], fewer[token])


def test_an_adapter_counts_with_its_base_whatever_the_vocabulary(
    store: WeightStore, tongues: Zoo, adapters: list[Path]
):
    adapted = Merge("task_arithmetic", (Input(Source("short")),), BASE)
    merge = Merge("linear", (Input(adapted), Input(MORE)), result=Result(tokenizer=MORE))
    found = dict(store.tensors(resolved(store, tongues, merge)))
    alone = dict(store.tensors(store.resolve(adapted, tongues.root)))
    more = load_file(tongues.root / "more" / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(found[name], (alone[name] + more[name]) / 2)


def test_without_a_choice_other_tokenizers_are_refused(store: WeightStore, tongues: Zoo):
    with pytest.raises(SourceError, match=r"the tensor lm_head\.weight has shape \[24, 16\]"):
        resolved(store, tongues, Merge("linear", (Input(BASE), Input(MORE))))


def test_a_tokenizer_of_none_of_the_models_is_refused(store: WeightStore, tongues: Zoo, experts: list[Path]):
    other = store.resolve(Source("math"), tongues.root)
    with pytest.raises(ConfigError, match=r"tokenizer\.source: .*math is none of the whole models of the recipe"):
        resolved(store, tongues, mean(BASE, MORE, source=other))


def test_a_token_that_cannot_be_added_is_refused_by_name(store: WeightStore, tongues: Zoo):
    with pytest.raises(SourceError, match="more: the token 'extra' is part of the vocabulary itself"):
        resolved(store, tongues, mean(BASE, MORE, source="union"))


def test_a_model_without_tokenizer_is_refused(store: WeightStore, tongues: Zoo, copied: Copy):
    folder = copied(tongues.root / "more")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(SourceError, match="more has no tokenizer that lists its tokens"):
        resolved(store, tongues, mean(BASE, Source(str(folder)), source="base"))


def test_tokenizers_that_spell_otherwise_are_refused(store: WeightStore, tongues: Zoo, copied: Copy):
    folder = copied(tongues.root / "more")
    for name, kind in (("base", "ByteLevel"), ("more", "Metaspace")):
        file = (folder if name == "more" else copied(tongues.base)) / "tokenizer.json"
        content = json.loads(file.read_text())
        decoder = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        if kind == "Metaspace":
            decoder = {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": True}
        file.write_text(json.dumps(content | {"decoder": decoder}))
    first, second = Source(str(folder.parent / "base")), Source(str(folder))
    with pytest.raises(SourceError, match=r"spells its tokens in another way \(Metaspace\) than .* \(ByteLevel\)"):
        resolved(store, tongues, mean(first, second, source="base"))


def test_an_adapter_of_the_embedding_is_refused(store: WeightStore, tongues: Zoo):
    if not (tongues.root / "embedded").exists():
        tongues.adapter("embedded", seed=9, targets=("lm_head", "q_proj"))
    adapted = Merge("task_arithmetic", (Input(Source("embedded")),), BASE)
    merge = Merge("linear", (Input(adapted), Input(MORE)), result=Result(tokenizer=MORE))
    with pytest.raises(SourceError, match=r"changes lm_head\.weight, whose rows are those of other tokens here"):
        resolved(store, tongues, merge)
