"""Merge methods that a recipe names as my.module:method."""

from pathlib import Path

import pytest

from evomerge.errors import ConfigError
from evomerge.strategies.merge.registry import methods
from evomerge.study.job import load_job, load_recipe
from evomerge.study.own_methods import method_hashes

MODULE = """
from evomerge import Needs, method

@method("first_of_all", title="First", needs=Needs("unused", (1, None)), parameters=(), source="a test", evidence="R")
def first(ctx, base, inputs, params):
    return inputs[0].clone()

plain = len
"""
RECIPE = "method: {method}\nmodels: [{{model: ./a}}, {{model: ./b}}]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    methods()
    from evomerge.strategies.merge import registry

    monkeypatch.setattr(registry, "_declared", dict(registry._declared))
    (tmp_path / "own_methods_of_test.py").write_text(MODULE)
    return tmp_path


def written(folder: Path, text: str) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(text)
    return file


def test_a_recipe_names_a_method_beside_it(folder: Path) -> None:
    recipe = load_recipe(written(folder, RECIPE.format(method='"own_methods_of_test:first"')))
    assert set(method_hashes(recipe)) == {"own_methods_of_test:first"}


def test_other_code_is_another_hash(folder: Path) -> None:
    text = RECIPE.format(method='"own_methods_of_test:first"')
    before = method_hashes(load_recipe(written(folder, text)))
    other = folder / "other"
    other.mkdir()
    (other / "own_methods_of_test.py").write_text(MODULE + "\n# changed\n")
    assert method_hashes(load_recipe(written(other, text))) != before


def test_a_method_may_be_searched_among_ours(folder: Path) -> None:
    job = written(
        folder,
        "recipe:\n  method: {choices: [linear, 'own_methods_of_test:first']}\n  models: [{model: ./a}, {model: ./b}]\n"
        "tasks: [{name: t, data: d.jsonl, prompt: '{{q}}', score: exact}]\n",
    )
    assert set(method_hashes(load_job(job).template)) == {"own_methods_of_test:first"}


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ("nowhere_at_all:first", r"recipe.yaml.*method: nowhere_at_all:first cannot be imported from"),
        ("own_methods_of_test:second", r"method: own_methods_of_test:second: there is no function 'second'"),
        ("own_methods_of_test:plain", r"method: own_methods_of_test:plain is no merge method; put the decorator"),
    ],
)
def test_what_is_no_method_is_named_with_its_key(folder: Path, method: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_recipe(written(folder, RECIPE.format(method=f"'{method}'")))
