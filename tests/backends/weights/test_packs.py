"""Packs turn a unified model back into nearly each of the models: the card's numbers, and small real models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evomerge.backends.weights.artifact import CheckpointArtifact
from evomerge.backends.weights.export import export
from evomerge.backends.weights.store import WeightStore
from evomerge.backends.weights.unpacking import unpack
from evomerge.errors import ConfigError, SourceError
from evomerge.recipe.tree import Input, Merge, Result, Slice, Source, Stack, WeightRecipe
from evomerge.recipe.values import ByGroup, Params
from tests.backends.weights.family import Copy, Zoo

PACKS: Params = {"packs": True}
NAMES = ("math", "code", "chat")
ALL = tuple(Input(Source(name)) for name in NAMES)
Tensors = dict[str, torch.Tensor]


def state(folder: Path) -> Tensors:
    return {name: tensor.double() for name, tensor in load_file(folder / "model.safetensors").items()}


def change(folder: Path, base: Path) -> Tensors:
    origin = state(base)
    return {name: tensor - origin[name] for name, tensor in state(folder).items()}


def magnitude(tensors: Tensors) -> float:
    return sum(float(tensor.abs().sum()) for tensor in tensors.values())


def plain(folder: Path, *values: float) -> Path:
    """A model of two tensors, for the sums to go over both."""
    folder.mkdir()
    save_file(
        {"one": torch.tensor(values[:2], dtype=torch.float32), "two": torch.tensor(values[2:], dtype=torch.float32)},
        folder / "model.safetensors",
    )
    (folder / "config.json").write_text("{}")
    return folder


def test_the_cards_packs_and_what_they_rebuild(store: WeightStore, tmp_path: Path) -> None:
    base = plain(tmp_path / "base", 0, 0, 0)
    models = [plain(tmp_path / "a", 0.9, -0.3, 0.2), plain(tmp_path / "b", 0.5, 0.4, -0.6)]
    inputs = tuple(Input(Source(str(model))) for model in models)
    recipe = store.resolve(Merge("emr", inputs, Source(str(base)), PACKS), tmp_path)
    assert isinstance(recipe, Merge)
    assert recipe.base is not None
    export(store, recipe, tmp_path / "out")
    wanted = {
        "a": (1.555556, [0b01, 0b0], [1.4, 0, 0]),
        "b": (0.789474, [0b11, 0b1], [0.710526, 0.315789, -0.473684]),
    }
    for name, (factor, bits, rebuilt) in wanted.items():
        pack = load_file(tmp_path / "out" / "packs" / f"{name}.safetensors")
        assert pack["factor"].item() == pytest.approx(factor, abs=1e-6)
        assert [*pack["one"].tolist(), *pack["two"].tolist()] == bits
        unpack(store, tmp_path / "out", name, recipe.base, tmp_path / f"{name}-again")
        found = state(tmp_path / f"{name}-again")
        assert [*found["one"].tolist(), *found["two"].tolist()] == pytest.approx(rebuilt, abs=1e-6)


@pytest.mark.parametrize("params", [{}, {"scale": 0.5}], ids=["plain", "scaled"])
def test_a_pack_keeps_what_agrees_in_sign_at_the_magnitude_of_the_model(
    store: WeightStore, zoo: Zoo, experts: list[Path], tmp_path: Path, params: Params
) -> None:
    recipe = store.resolve(Merge("emr", ALL, Source("base"), {**PACKS, **params}), zoo.root)
    assert isinstance(recipe, Merge)
    assert recipe.base is not None
    store.check(recipe)
    artifact = export(store, recipe, tmp_path / "out")
    assert isinstance(artifact, CheckpointArtifact)
    assert artifact.packs == NAMES
    unified = change(tmp_path / "out", zoo.base)
    for name, expert in zip(NAMES, experts, strict=True):
        again = tmp_path / name
        unpack(store, tmp_path / "out", name, recipe.base, again)
        model = change(expert, zoo.base)
        agrees = {key: tensor * (tensor * model[key] > 0) for key, tensor in unified.items()}
        factor = magnitude(model) / magnitude(agrees)
        for key, rebuilt in change(again, zoo.base).items():
            torch.testing.assert_close(rebuilt, factor * agrees[key], rtol=1e-5, atol=1e-6)
        assert AutoModelForCausalLM.from_pretrained(again).num_parameters() > 0
        assert json.loads((again / "config.json").read_text()) == json.loads((zoo.base / "config.json").read_text())


def test_packs_change_nothing_in_the_unified_model_and_are_not_there_unless_asked_for(
    store: WeightStore, zoo: Zoo, experts: list[Path], tmp_path: Path
) -> None:
    assert len(experts) == len(NAMES)
    for name, params in (("with", PACKS), ("without", {})):
        export(store, store.resolve(Merge("emr", ALL, Source("base"), params), zoo.root), tmp_path / name)
    assert all(tensor.equal(state(tmp_path / "with")[name]) for name, tensor in state(tmp_path / "without").items())
    assert not (tmp_path / "without" / "packs").exists()


def test_adapters_and_models_of_one_name_have_packs_in_any_dtype(
    store: WeightStore, zoo: Zoo, adapters: list[Path], experts: list[Path], tmp_path: Path
) -> None:
    same = tmp_path / "math"
    same.symlink_to(experts[1])
    inputs = tuple(Input(Source(str(folder))) for folder in (adapters[0], experts[0], same))
    recipe = Merge("emr", inputs, Source(str(zoo.base)), PACKS, result=Result("bfloat16"))
    recipe = store.resolve(recipe, zoo.root)
    assert isinstance(recipe, Merge)
    assert recipe.base is not None
    artifact = export(store, recipe, tmp_path / "out")
    assert isinstance(artifact, CheckpointArtifact)
    assert artifact.packs == ("short", "math", "math-3")
    unpack(store, tmp_path / "out", "short", recipe.base, tmp_path / "again")
    rebuilt = load_file(tmp_path / "again" / "model.safetensors")
    assert {tensor.dtype for tensor in rebuilt.values()} == {torch.bfloat16}
    untouched = "model.norm.weight"
    assert rebuilt[untouched].equal(load_file(zoo.base / "model.safetensors")[untouched].bfloat16())


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (Merge("emr", ALL, Source("base"), {"packs": ByGroup({"mlp": True})}), "packs: must be true or false"),
        (Merge("linear", (Input(Merge("emr", ALL, Source("base"), PACKS)),)), "packs: it is written within"),
        (Stack((Slice(Merge("emr", ALL, Source("base"), PACKS)),)), "packs: it is written within"),
        (Merge("emr", ALL, Source("base"), PACKS, refactor=4), "packs: they belong to a whole model"),
        (Merge("emr", ALL, Source("base"), PACKS, result=Result(tokenizer="union")), "packs: they belong to"),
    ],
)
def test_packs_that_cannot_be_made_are_refused_before_anything_is_computed(
    recipe: WeightRecipe, sentence: str, store: WeightStore, zoo: Zoo, experts: list[Path]
) -> None:
    assert len(experts) == len(NAMES)
    with pytest.raises(ConfigError, match=sentence):
        store.check(store.resolve(recipe, zoo.root))


def test_what_is_no_pack_of_this_model_is_refused_with_a_sentence(
    store: WeightStore, zoo: Zoo, experts: list[Path], tmp_path: Path, copied: Copy
) -> None:
    recipe = store.resolve(Merge("emr", ALL, Source("base"), PACKS), zoo.root)
    assert isinstance(recipe, Merge)
    assert recipe.base is not None
    out, again = tmp_path / "out", tmp_path / "again"
    with pytest.raises(ConfigError, match="has no packs; merge with `method: emr`"):
        unpack(store, experts[0], "math", recipe.base, again)
    export(store, recipe, out)
    with pytest.raises(ConfigError, match="no pack 'maths'; there are math, code, chat"):
        unpack(store, out, "maths", recipe.base, again)
    other = store.resolve(Source(str(copied(experts[0]))), tmp_path)
    with pytest.raises(ConfigError, match="stand on another base"):
        unpack(store, out, "math", other, again)
    with pytest.raises(ConfigError, match=r"needs \d+ bytes and 7 are free"):
        unpack(store, out, "math", recipe.base, again, free=lambda _: 7)
    pack = out / "packs" / "math.safetensors"
    tensors = load_file(pack)
    save_file({**tensors, "lm_head.weight": tensors["lm_head.weight"][:-1].clone()}, pack)
    with pytest.raises(SourceError, match=r"its lm_head\.weight does not fit the unified model"):
        unpack(store, out, "math", recipe.base, again)
    assert not again.exists()
    with pytest.raises(ConfigError, match="exists already"):
        unpack(store, out, "code", recipe.base, out)
