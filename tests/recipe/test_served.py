"""Merges by a service in the tree: how they are written, what their id says, and their holes."""

import pytest
import yaml

from evomerge.errors import ConfigError
from evomerge.recipe.holes import Hole
from evomerge.recipe.reading import parse_yaml
from evomerge.recipe.served import ServedAdapter, ServedInput, ServedMerge, with_fingerprints
from evomerge.recipe.served_spec import ServedMergeSettings
from evomerge.recipe.space import Space
from evomerge.recipe.spec import MergeSettings, recipe_settings
from evomerge.recipe.tree import as_weights, recipe_id, sources
from evomerge.recipe.writing import to_plain

WEIGHT = Hole(low=-1, high=1)


def merge(*weights: object, method: str = "linear", **params: object) -> ServedMerge:
    inputs = tuple(ServedInput(ServedAdapter(f"a{at}"), {"weight": weight}) for at, weight in enumerate(weights))  # pyright: ignore[reportArgumentType]  # holes and numbers
    return ServedMerge(method, inputs, params)  # pyright: ignore[reportArgumentType]  # holes and numbers


def read(text: str) -> ServedMerge:
    return parse_yaml(text, "recipe.yaml").parse(ServedMergeSettings).tree()


@pytest.mark.parametrize(
    "recipe",
    [
        merge(0.5, -1.0),
        merge(WEIGHT, 1.0, method="ties", density=Hole(low=0.1, high=1), majority_sign="frequency"),
        merge(WEIGHT, WEIGHT, method="dare_linear", density=0.5),
    ],
)
def test_what_is_written_reads_back_as_itself(recipe: ServedMerge) -> None:
    assert read(yaml.safe_dump(to_plain(recipe))) == recipe


def test_a_weight_that_is_left_out_is_one() -> None:
    assert read("models: [{adapter: a0}]") == merge(1.0)


@pytest.mark.parametrize(
    ("data", "grammar"),
    [
        ({"models": [{"adapter": "a"}]}, ServedMergeSettings),
        ({"method": "ties", "models": [{"model": "x"}, {"adapter": "a"}]}, ServedMergeSettings),
        ({"method": "ties", "models": [{"model": "x"}]}, MergeSettings),
        ({"models": "x"}, MergeSettings),
    ],
)
def test_the_keys_of_the_models_tell_a_services_merge_from_one_of_weights(data: object, grammar: type) -> None:
    assert recipe_settings(data) is grammar


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: [{adapter: a}, {adapter: a}]", "twice"),
        ("{method: ties, models: [{adapter: a}]}", "needs a density"),
        ("{method: linear, density: 0.5, models: [{adapter: a}]}", "has no density"),
        ("{method: ties, density: 1.5, models: [{adapter: a}]}", "between 0 and 1"),
        ("{method: ties, density: {low: -1, high: 1}, models: [{adapter: a}]}", "between 0 and 1"),
        ("models: [{adapter: a, density: 2}]", "between 0 and 1"),
        ("{majority_sign: total, models: [{adapter: a}]}", "elects no signs"),
        ("{method: slerp, models: [{adapter: a}]}", "dare_ties"),
        ("models: [{adapter: a, model: b}]", "model"),
    ],
)
def test_what_no_service_can_make_is_refused_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read(text)


def test_holes_are_genes_named_by_their_places() -> None:
    template = merge(WEIGHT, WEIGHT, method="ties", density=Hole(low=0, high=1))
    space = Space(template)
    assert [gene.name for gene in space.genes] == ["models.0.weight", "models.1.weight", "density"]
    filled = space.decode((0.25, 0.5, 1.0))
    assert filled == merge(-0.5, 0.0, method="ties", density=1.0)
    assert space.encode(filled) == (0.25, 0.5, 1.0)


def test_the_id_knows_what_a_service_tells_and_not_what_an_adapter_is_called() -> None:
    told = {"a0": ServedAdapter("a0", "f0"), "a1": ServedAdapter("a1", "f1")}
    one = with_fingerprints(merge(1.0, 0.5), "service", told)
    renamed = ServedMerge(
        "linear",
        tuple(ServedInput(ServedAdapter(f"other{at}", f"f{at}"), {"weight": w}) for at, w in enumerate((1, 0.5))),
        service="service",
    )
    assert recipe_id(one) == recipe_id(renamed)
    others = [
        with_fingerprints(merge(1.0, 0.5), "another", told),
        with_fingerprints(merge(1.0, 0.5), "service", told | {"a1": ServedAdapter("a1", "changed")}),
        with_fingerprints(merge(1.0, 0.6), "service", told),
        with_fingerprints(merge(1.0, 0.5, method="ties", density=0.5), "service", told),
        merge(1.0, 0.5),
    ]
    assert len({recipe_id(recipe) for recipe in (one, *others)}) == 6


def test_it_has_no_weights_of_ours() -> None:
    assert list(sources(merge(1.0))) == []
    with pytest.raises(ConfigError, match="evomerge run"):
        as_weights(merge(1.0))
