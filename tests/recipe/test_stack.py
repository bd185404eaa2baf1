"""Stacks and values by pattern: how they are written, what tells them apart, and how their holes are searched."""

from dataclasses import replace

import pytest
import yaml

from evomerge.errors import ConfigError
from evomerge.recipe.groups import Layout
from evomerge.recipe.holes import Hole
from evomerge.recipe.reading import parse_yaml
from evomerge.recipe.space import Space
from evomerge.recipe.spec import MergeSettings, StackSettings, recipe_settings
from evomerge.recipe.tree import (
    Input,
    Merge,
    Per,
    Result,
    Slice,
    Source,
    Stack,
    WeightRecipe,
    recipe_id,
    sources,
    with_sources,
)
from evomerge.recipe.values import ByPattern, Gradient
from evomerge.recipe.writing import to_plain

A, B, C = Source("a"), Source("b"), Source("c", "main")
PART = Stack((Slice(B, (2, 6)),))
RECIPES: list[WeightRecipe] = [
    Stack((Slice(A, (0, 3)), Slice(B, (1, 4)))),
    Stack((Slice(A), Slice(C, (1, 4), 0.0)), base=C, head="last", result=Result("bfloat16", "base")),
    Stack((Slice(Merge("slerp", (Input(Stack((Slice(A, (0, 4)),))), Input(PART)), params={"t": 0.5})), Slice(A))),
    Merge("linear", (Input(PART, {"weight": 0.5}), Input(Stack((Slice(A, (0, 4)),), base=B))), PART),
    Merge("linear", (Input(A), Input(C)), result=Result(tokenizer=C)),
    Merge("linear", (Input(A, {"weight": ByPattern((("*mlp*", Gradient((0, 1))), ("*", 0.5)))}),)),
]


def read(recipe: object) -> WeightRecipe:
    return parse_yaml(yaml.safe_dump(recipe, sort_keys=False), "recipe.yaml").parse(recipe_settings(recipe)).tree()  # pyright: ignore[reportReturnType]  # no ensembles here


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_that_is_written_reads_back_as_itself(recipe: WeightRecipe):
    assert read(to_plain(recipe)) == recipe


def test_layers_beside_a_model_are_a_part_of_it():
    written = {
        "method": "linear",
        "base": {"model": "a", "layers": [0, 4]},
        "models": [{"model": "b", "layers": [2, 6]}],
    }
    assert read(written) == Merge("linear", (Input(PART),), Stack((Slice(A, (0, 4)),)))


def test_ids_tell_stacks_apart_by_all_that_changes_the_model():
    stack = Stack((Slice(A, (0, 3)), Slice(B, (1, 4))))
    others = [
        Stack(stack.slices[::-1]),
        Stack((Slice(A, (0, 3)), Slice(B, (1, 3)))),
        Stack((Slice(A, (0, 3)), Slice(B, (1, 4), 0.5))),
        replace(stack, base=B),
        replace(stack, head="last"),
        replace(stack, result=Result("float16")),
        replace(stack, result=Result(tokenizer="union")),
    ]
    assert len({recipe_id(recipe) for recipe in [stack, *others]}) == 1 + len(others)


def test_ids_tell_the_order_of_patterns():
    first, second = ("*mlp*", 1), ("*", 0.5)
    merges = [
        Merge("linear", (Input(A, {"weight": ByPattern(order)}),)) for order in ((first, second), (second, first))
    ]
    assert recipe_id(merges[0]) != recipe_id(merges[1])


def test_sources_of_slices_and_of_the_tokenizer_are_replaced():
    known = {source: replace(source, fingerprint=source.model * 2) for source in (A, B, C)}
    stack = Stack((Slice(A), Slice(Merge("linear", (Input(B),)))), base=C, result=Result(tokenizer=A))
    found = with_sources(stack, known)
    assert {source.fingerprint for source in sources(found)} == {"aa", "bb", "cc"}
    assert isinstance(found, Stack)
    assert found.result.tokenizer == known[A]


def test_empty_layers_are_refused_with_the_reason():
    with pytest.raises(ConfigError, match=r"r\.yaml:1: stack\[0\]: layers: \[3, 3\] are none; the first number"):
        parse_yaml("stack: [{model: a, layers: [3, 3]}]", "r.yaml").parse(StackSettings)


def test_the_first_pattern_that_matches_counts():
    value = ByPattern((("*self_attn*", 1), ("*.0.*", 2), ("*", 3)))
    names = ("layers.0.self_attn.q", "layers.0.mlp.up", "layers.1.mlp.up")
    assert [value.of(name) for name in names] == [1, 2, 3]
    assert ByPattern((("*.mlp.*", 1),)).of("norm.weight") is None


def names(layers: int) -> tuple[str, ...]:
    return ("embed.weight", *(f"layers.{number}.mlp.weight" for number in range(layers)))


def test_holes_of_slices_are_genes_and_groups_within_a_slice_are_those_of_its_layers():
    inner = Merge("linear", (Input(A, {"weight": Hole(0, 1)}), Input(B)), per=Per(layers=2))
    stack = Stack((Slice(inner, (0, 2)), Slice(A, (2, 3), Hole(0, 1))))
    layout = Layout(names(3), {"stack.0.model": Layout(names(4))})
    space = Space(stack, layout)
    assert [gene.name for gene in space.genes] == [
        "stack.0.model.models.0.weight@layers_1_of_2",
        "stack.0.model.models.0.weight@layers_2_of_2",
        "stack.1.scale",
    ]
    decoded = space.decode([0.25, 0.5, 0.75])
    assert isinstance(decoded, Stack)
    assert decoded.slices[1].scale == 0.75
    assert space.decode(space.encode(decoded)) == decoded


def test_more_groups_of_layers_than_a_slice_has_layers_are_refused():
    inner = Merge("linear", (Input(Stack((Slice(A, (0, 2)),)), {"weight": Hole(0, 1)}),), per=Per(layers=3))
    with pytest.raises(ValueError, match="3 groups of layers are more than the 2 layers"):
        Space(Stack((Slice(inner), Slice(A))), Layout(names(5), {"stack.0.model": Layout(names(2))}))


def test_a_hole_under_a_pattern_is_one_gene_whatever_the_groups():
    value = ByPattern((("*mlp*", Hole(0, 1)), ("*", 0.5)))
    merge = Merge("linear", (Input(A, {"weight": value}),), per=Per(layers=2))
    space = Space(merge, Layout(names(4)))
    assert [gene.name for gene in space.genes] == ["models.0.weight.*mlp*"]
    decoded = space.decode([0.25])
    assert decoded.inputs[0].params["weight"] == ByPattern((("*mlp*", 0.25), ("*", 0.5)))
    assert space.decode(space.encode(decoded)) == decoded


def test_a_map_of_groups_and_patterns_together_is_a_map_of_groups():
    merge = (
        parse_yaml("{method: linear, models: [{model: a, weight: {mlp: 1, '*x*': 2}}]}", "r")
        .parse(MergeSettings)
        .tree()
    )
    assert not isinstance(merge.inputs[0].params["weight"], ByPattern)
