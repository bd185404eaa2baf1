"""Spaces: templates with holes as boxes of numbers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.recipe.groups import Layout
from evomerge.recipe.holes import Hole
from evomerge.recipe.space import Space
from evomerge.recipe.tree import Input, Merge, Per, Recipe, Source, recipe_id
from evomerge.recipe.values import ByGroup, Gradient

LAYOUT = Layout(
    (
        "model.embed_tokens.weight",
        *(
            f"model.layers.{layer}.{part}.weight"
            for layer in range(4)
            for part in ("self_attn.q_proj", "mlp.up_proj", "input_layernorm")
        ),
        "model.norm.weight",
        "lm_head.weight",
    )
)
A, B, C = Source("a", fingerprint="aa"), Source("b", fingerprint="bb"), Source("c", fingerprint="cc")


def units(space: Space[Any]) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(0, 1), min_size=len(space), max_size=len(space))


def merge(**changes: Any) -> Merge:
    given: dict[str, Any] = {
        "method": "ties",
        "base": A,
        "inputs": (
            Input(B, {"weight": Hole(0, 1.5), "density": Hole(0.05, 1)}),
            Input(C, {"weight": Hole(-1, 1.5), "density": 0.4}),
        ),
        "params": {"scale": Hole(0.3, 1.5, log=True)},
    }
    return Merge(**(given | changes))


TEMPLATES: dict[str, Recipe] = {
    "plain": merge(),
    "groups": merge(per=Per(groups=("attention", "mlp", "rest"))),
    "layers": merge(per=Per(layers=2)),
    "layers and groups": merge(per=Per(groups=("attention", "rest"), layers=2)),
    "tensor": merge(per=Per(tensor=True)),
    "gradient": merge(params={"scale": Gradient((0.5, Hole(0, 1), Hole(0, 2)))}, per=Per(groups=("attention", "rest"))),
    "nested": merge(
        base=merge(per=Per(groups=("mlp", "rest"))), params={"scale": Hole(0, 1.5, name="models.0.weight")}
    ),
    "method": merge(
        method=Hole(choices=("ties", "task_arithmetic")),
        inputs=(Input(B, {"weight": Hole(0, 1), "density": Hole(0, 1, when={"method": ("ties",)})}), Input(C)),
    ),
    "given groups": merge(
        per=Per(groups=("mlp", "rest")),
        params={"scale": ByGroup({"mlp": Hole(0, 1), "rest": 0.5})},
    ),
}


@pytest.mark.parametrize("name", TEMPLATES)
@given(data=st.data())
def test_decoding_what_was_encoded_gives_the_same_recipe(name: str, data: st.DataObject) -> None:
    space = Space(TEMPLATES[name], LAYOUT)
    recipe = space.decode(data.draw(units(space)))
    again = space.decode(space.encode(recipe))
    assert again == recipe
    assert recipe_id(again) == recipe_id(recipe)


@pytest.mark.parametrize(
    ("name", "genes"),
    [("plain", 4), ("groups", 12), ("layers", 8), ("layers and groups", 16), ("tensor", 60), ("gradient", 10)],
)
def test_every_hole_is_one_gene_per_group(name: str, genes: int) -> None:
    assert len(Space(TEMPLATES[name], LAYOUT)) == genes


def test_holes_of_one_name_are_one_gene() -> None:
    shared = Hole(0, 1, name="w")
    space = Space(merge(inputs=(Input(B, {"weight": shared}), Input(C, {"weight": shared})), params={}))
    assert [gene.name for gene in space.genes] == ["w"]
    recipe = space.decode([0.25])
    assert isinstance(recipe, Merge)
    assert [item.params["weight"] for item in recipe.inputs] == [0.25, 0.25]


def test_a_hole_exists_only_when_its_condition_holds() -> None:
    space = Space(TEMPLATES["method"])
    names = [gene.name for gene in space.genes]
    assert names == ["method", "models.0.weight", "models.0.density", "scale"]
    with_ties, without = space.decode([0.1, 0.5, 0.5, 0.5]), space.decode([0.9, 0.5, 0.5, 0.5])
    assert isinstance(with_ties, Merge)
    assert isinstance(without, Merge)
    assert set(with_ties.inputs[0].params) == {"weight", "density"}
    assert set(without.inputs[0].params) == {"weight"}


def test_a_gene_that_does_not_exist_changes_nothing() -> None:
    space = Space(TEMPLATES["method"])
    assert recipe_id(space.decode([0.9, 0.5, 0.1, 0.5])) == recipe_id(space.decode([0.9, 0.5, 0.9, 0.5]))


def test_a_gradient_of_holes_goes_with_its_condition() -> None:
    scale = Gradient(tuple(Hole(0, 1, when={"method": ("ties",)}) for _ in range(2)))
    space = Space(merge(method=Hole(choices=("ties", "linear")), inputs=(Input(B), Input(C)), params={"scale": scale}))
    with_ties, without = space.decode([0.1, 0.25, 0.5]), space.decode([0.9, 0.25, 0.5])
    assert isinstance(with_ties, Merge)
    assert isinstance(without, Merge)
    assert with_ties.params == {"scale": Gradient((0.25, 0.5))}
    assert without.params == {}
    assert space.decode(space.encode(without)) == without


def test_conditions_of_conditions_hold_too() -> None:
    space = Space(
        {
            "a": Hole(choices=("x", "y")),
            "b": Hole(choices=("p", "q"), when={"a": ("x",)}),
            "c": Hole(0, 1, when={"b": ("p",)}),
        }
    )
    assert space.decode([0.1, 0.1, 0.5]) == {"a": "x", "b": "p", "c": 0.5}
    assert space.decode([0.9, 0.1, 0.5]) == {"a": "y"}


def test_any_tree_of_maps_and_lists_is_a_template() -> None:
    space = Space({"x": Hole(-1, 1), "y": [1, Hole(1, 9, int=True)], "z": "word"})
    assert space.decode([0.75, 0.5]) == {"x": 0.5, "y": [1, 5], "z": "word"}


def test_the_groups_of_a_recipe_are_its_own() -> None:
    own = merge(per=Per(groups=("early", "rest")), groups={"early": ("model.layers.[01].*",)})
    assert [gene.name for gene in Space(own, LAYOUT).genes][:2] == ["models.0.weight@early", "models.0.weight@rest"]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ({"a": Hole(0, 1, name="w"), "b": Hole(0, 2, name="w")}, "differ"),
        ({"a": Hole(0, 1, when={"nobody": (1,)})}, "none of that name"),
        ({"a": Hole(choices=("x", "y")), "b": Hole(0, 1, when={"a": ("z",)})}, "b: when can never hold.*'z'"),
        ({"a": Hole(choices=("x", "y")), "b": Hole(0, 1, when={"a": ()})}, "names no value"),
        ({"a": Hole(0, 1, when={"a": (1,)})}, "only when it exists"),
        ({"a": Hole(0, 1, when={"b": (1,)}), "b": Hole(0, 1, when={"a": (1,)})}, "only when it exists"),
        (merge(per=Per(groups=("empty", "rest")), groups={"empty": ()}), "matches no tensor"),
        (merge(per=Per(groups=("attention",))), "add 'rest'"),
        (merge(per=Per(groups=("attentoin", "rest"))), "unknown group"),
        (merge(per=Per(groups=("early", "rest")), groups={"early": ("nothing*",)}), "matches no tensor"),
        (merge(per=Per(layers=9)), "more than the 4 layers"),
    ],
)
def test_templates_that_cannot_be_are_refused(template: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Space(template, LAYOUT)


def test_groups_need_a_layout() -> None:
    with pytest.raises(ValueError, match="Layout"):
        Space(merge(per=Per(layers=2)))


CHOICE = Hole(choices=("x", "y"))
ONLY_X = Hole(0, 1, when={"a": ("x",)})


@pytest.mark.parametrize(
    "template",
    [
        {"a": CHOICE, "b": [ONLY_X]},
        {"a": CHOICE, "b": Gradient((ONLY_X, 0.5))},
        {"a": CHOICE, "b": Gradient((ONLY_X, Hole(0, 1, when={"a": ("y",)})))},
        {"a": CHOICE, "b": ByGroup({"mlp": Gradient((0.5, ONLY_X))})},
        {"a": CHOICE, "b": merge(method=Hole(choices=("ties", "linear"), when={"a": ("x",)}))},
    ],
)
def test_a_hole_with_a_condition_cannot_stand_where_a_value_must(template: Any) -> None:
    with pytest.raises(ValueError, match="can be left out"):
        Space(template)


def test_two_places_of_one_path_are_not_taken_for_one_gene() -> None:
    with pytest.raises(ValueError, match=r"two holes stand at 'a\.b'"):
        Space({"a.b": Hole(0, 1), "a": {"b": Hole(0, 1)}})
    inner = Space({"rate": Hole(0, 1), "params": {"rate": Hole(0, 1)}, "hyperparams": Hole(0, 1)})
    assert [gene.name for gene in inner.genes] == ["rate", "params.rate", "hyperparams"]


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="4 genes"):
        Space(merge()).decode([0.5])


def test_a_recipe_from_elsewhere_is_refused() -> None:
    space = Space(merge())
    recipe = space.decode([0.5] * 4)
    assert isinstance(recipe, Merge)
    with pytest.raises(ValueError, match="does not come from"):
        space.encode(merge(base=B, inputs=recipe.inputs, params=recipe.params))
    with pytest.raises(ValueError, match=r"models\.0\.weight"):
        space.encode(merge(inputs=(Input(B, {"weight": 7.0}), recipe.inputs[1])))
