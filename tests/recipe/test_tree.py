"""Recipes: their ids, and how they are written."""

import json
import subprocess
import sys

import pytest
import yaml

from evomerge.recipe.holes import Hole
from evomerge.recipe.reading import parse_yaml
from evomerge.recipe.spec import MergeSettings
from evomerge.recipe.tree import Input, Merge, Per, Recipe, Source, WeightRecipe, recipe_id, sources, with_sources
from evomerge.recipe.values import ByGroup, Gradient, Value
from evomerge.recipe.writing import to_plain

A, B = Source("a", fingerprint="aa"), Source("b", fingerprint="bb")
RECIPES: list[WeightRecipe] = [
    Merge("linear", (Input(A, {"weight": 0.25}), Input(B))),
    Merge(
        "ties",
        (Input(B, {"weight": ByGroup({"mlp": 0.5, "rest": 1}), "density": 0.2}),),
        A,
        per=Per(groups=("mlp", "rest")),
    ),
    Merge(
        "task_arithmetic",
        (Input(B),),
        A,
        {"scale": Gradient((0.0, 0.5, 1.0))},
        per=Per(layers=4, groups=("mlp", "rest")),
    ),
    Merge("dare_ties", (Input(Merge("linear", (Input(A), Input(B)))),), A, {"scale": 0.5}, seed=3, refactor=8),
    Merge("linear", (Input(Source("hub/model", "main")),), None, {}, Per(tensor=True), {"mine": ("*.x.*",)}),
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_that_is_written_reads_back_as_itself(recipe: WeightRecipe) -> None:
    text = yaml.safe_dump(to_plain(recipe))
    bare = with_sources(recipe, {source: Source(source.model, source.revision) for source in sources(recipe)})
    assert parse_yaml(text, "recipe.yaml").parse(MergeSettings).tree() == bare


def test_the_id_knows_a_model_by_its_contents_not_its_place() -> None:
    here, there = Merge("linear", (Input(A),)), Merge("linear", (Input(Source("/elsewhere", fingerprint="aa")),))
    assert recipe_id(here) == recipe_id(there)
    assert recipe_id(here) != recipe_id(Merge("linear", (Input(B),)))


def test_the_id_knows_numbers_by_their_value() -> None:
    one, float_one = (Merge("linear", (Input(A, {"weight": number}),)) for number in (1, 1.0))
    zero, negative_zero = (Merge("linear", (Input(A, {"weight": number}),)) for number in (0, -0.0))
    assert recipe_id(one) == recipe_id(float_one)
    assert recipe_id(zero) == recipe_id(negative_zero)
    assert recipe_id(one) != recipe_id(zero)
    assert recipe_id(one) != recipe_id(Merge("linear", (Input(A, {"weight": True}),)))


@pytest.mark.parametrize(
    "changed",
    [
        Merge("ties", (Input(A), Input(B)), A),
        Merge("linear", (Input(B), Input(A)), A),
        Merge("linear", (Input(A), Input(B)), B),
        Merge("linear", (Input(A), Input(B)), A, {"normalize": False}),
        Merge("linear", (Input(A), Input(B)), A, seed=1),
        Merge("linear", (Input(A), Input(B)), A, refactor=4),
    ],
)
def test_the_id_changes_with_everything_that_changes_the_model(changed: Recipe) -> None:
    assert recipe_id(changed) != recipe_id(Merge("linear", (Input(A), Input(B)), A))


def test_the_id_ignores_groups_that_nothing_differs_by() -> None:
    plain = Merge("linear", (Input(A), Input(B)))
    assert recipe_id(plain) == recipe_id(Merge("linear", (Input(A), Input(B)), per=Per(groups=("mlp", "rest"))))


def test_the_id_knows_the_order_of_own_groups_as_the_first_that_matches_takes_a_tensor() -> None:
    early, late = ("early", ("*.0.*", "*.1.*")), ("late", ("*.1.*", "*.2.*"))
    ids = {
        recipe_id(
            Merge(
                "linear",
                (Input(A, {"weight": ByGroup({"early": 0.1, "late": 0.9})}), Input(B)),
                per=Per(groups=("early", "late", "rest")),
                groups=dict(order),
            )
        )
        for order in ((early, late), (late, early))
    }
    assert len(ids) == 2


@pytest.mark.parametrize("value", [Hole(0, 1), Gradient((0.0, Hole(0, 1))), ByGroup({"mlp": Hole(0, 1)})])
def test_the_id_of_a_template_knows_the_groups_that_its_holes_are_searched_by(value: Value) -> None:
    inputs = (Input(A, {"weight": value}), Input(B))
    by_role, by_depth = (Merge("linear", inputs, per=per) for per in (Per(groups=("mlp", "rest")), Per(layers=2)))
    assert recipe_id(by_role) != recipe_id(by_depth)


def test_ids_are_the_same_in_every_process_and_version() -> None:
    """These are part of what journals hold: they may never change."""
    known = ["6ea949e955ffb3ec"]
    code = (
        "from evomerge.recipe.tree import *;"
        "print(recipe_id(Merge('ties',(Input(Source('b',fingerprint='bb'),{'weight':0.5}),),Source('a',fingerprint='aa'))))"
    )
    ids = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("0", "1")
    }
    assert list(ids) == known


def test_a_number_that_is_none_has_no_id() -> None:
    with pytest.raises(ValueError, match="nan"):
        recipe_id(Merge("linear", (Input(A, {"weight": float("nan")}),)))


def test_a_gradient_is_piecewise_linear_over_depth() -> None:
    gradient = Gradient((0.0, 1.0, 0.0))
    assert [gradient.at(depth) for depth in (0, 0.25, 0.5, 1, -1, 2)] == [0, 0.5, 1, 0, 0, 0]
    assert Gradient((0.3,)).at(0.7) == 0.3


def test_to_plain_is_json() -> None:
    for recipe in RECIPES:
        assert json.loads(json.dumps(to_plain(recipe))) == to_plain(recipe)
