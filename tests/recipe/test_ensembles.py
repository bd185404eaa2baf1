"""Ensembles in the tree: how they are written, what their id says, and their holes."""

import pytest
import yaml

from evomerge.errors import ConfigError
from evomerge.recipe.endpoints import asked_of, with_endpoints
from evomerge.recipe.holes import Hole
from evomerge.recipe.reading import parse_yaml
from evomerge.recipe.space import Space
from evomerge.recipe.spec import EnsembleSettings, MergeSettings, recipe_settings
from evomerge.recipe.tree import Endpoint, Ensemble, Input, Member, Merge, Source, as_weights, recipe_id, sources
from evomerge.recipe.writing import to_plain

FAST, SMART = Endpoint("fast", "f1"), Endpoint("smart", "f2")
WEIGHT = Hole(low=-1, high=1)


def ensemble(*members: Member, combine: str | Hole = "vote") -> Ensemble:
    return Ensemble(combine, members)


def test_what_is_written_reads_back_as_itself() -> None:
    written = ensemble(Member(Endpoint("fast"), {"weight": WEIGHT}), Member(Endpoint("smart"), {"weight": 0.5}))
    text = yaml.safe_dump(to_plain(written))
    assert parse_yaml(text, "recipe.yaml").parse(EnsembleSettings).tree() == written


@pytest.mark.parametrize(
    ("data", "grammar"),
    [
        ({"combine": "vote"}, EnsembleSettings),
        ({"members": []}, EnsembleSettings),
        ({"method": "ties"}, MergeSettings),
        ("text", MergeSettings),
    ],
)
def test_the_keys_tell_ensembles_from_merges(data: object, grammar: type) -> None:
    assert recipe_settings(data) is grammar


def test_the_id_knows_who_is_asked_not_what_they_are_called() -> None:
    one = ensemble(Member(FAST, {"weight": 1}), Member(SMART))
    assert recipe_id(one) == recipe_id(ensemble(Member(Endpoint("quick", "f1"), {"weight": 1.0}), Member(SMART)))


@pytest.mark.parametrize(
    "changed",
    [
        ensemble(Member(FAST, {"weight": 0.5}), Member(SMART)),
        ensemble(Member(SMART), Member(FAST, {"weight": 1.0})),
        ensemble(Member(FAST, {"weight": 1.0})),
        ensemble(Member(FAST, {"weight": 1.0}), Member(SMART), combine="elder"),
        ensemble(Member(Endpoint("fast", "f3"), {"weight": 1.0}), Member(SMART)),
        Ensemble("vote", (Member(FAST, {"weight": 1.0}), Member(SMART)), {"share": 0.5}),
    ],
)
def test_the_id_changes_with_everything_that_changes_the_answers(changed: Ensemble) -> None:
    assert recipe_id(changed) != recipe_id(ensemble(Member(FAST, {"weight": 1.0}), Member(SMART)))


def test_holes_become_genes_and_decode_to_weights() -> None:
    space = Space(ensemble(Member(FAST, {"weight": WEIGHT}), Member(SMART, {"weight": WEIGHT})))
    assert [gene.name for gene in space.genes] == ["members.0.weight", "members.1.weight"]
    found = space.decode((0.0, 0.75))
    assert found == ensemble(Member(FAST, {"weight": -1.0}), Member(SMART, {"weight": 0.5}))
    assert space.decode(space.encode(found)) == found


def test_holes_of_one_name_are_one_gene() -> None:
    same = Hole(low=-1, high=1, name="w")
    space = Space(ensemble(Member(FAST, {"weight": same}), Member(SMART, {"weight": same})))
    assert len(space) == 1


def test_the_combiner_may_be_a_hole() -> None:
    only = Hole(low=0, high=1, when={"combine": ("elder",)})
    space = Space(Ensemble(Hole(choices=("vote", "elder")), (Member(FAST),), {"share": only}))
    assert space.decode((0.0, 0.5)) == Ensemble("vote", (Member(FAST),))
    assert space.decode((0.9, 0.5)) == Ensemble("elder", (Member(FAST),), {"share": 0.5})


def test_fingerprints_are_put_in_by_name() -> None:
    bare = ensemble(Member(Endpoint("fast")), Member(Endpoint("smart"), {"weight": WEIGHT}))
    assert with_endpoints(bare, {"fast": "f1", "smart": "f2"}) == ensemble(
        Member(FAST), Member(SMART, {"weight": WEIGHT})
    )


def test_an_ensemble_asks_and_has_no_weights() -> None:
    both = ensemble(Member(FAST), Member(SMART), Member(FAST))
    assert asked_of(both) == (FAST, SMART)
    assert asked_of(FAST) == (FAST,)
    assert asked_of(Source("a")) == ()
    assert list(sources(both)) == []
    with pytest.raises(ConfigError, match="asks models for answers, and has no weights"):
        as_weights(both)
    merge = Merge("linear", (Input(Source("a")),))
    assert as_weights(merge) is merge


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("combine: vote\nmembers: []", "members"),
        ("combine: vote\nmembers: [{weight: 1}]", "'endpoint' is missing"),
        ("members: [{endpoint: a}]", "'combine' is missing"),
        ("combine: vote\nmembers: [{endpoint: a, weight: [1, 2]}]", "members[0].weight"),
        ("combine: vote\nmembers: [{endpoint: a, weight: {low: 1, high: 0}}]", "low (1) must be below high (0)"),
    ],
)
def test_wrong_input_names_its_key(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "recipe.yaml").parse(EnsembleSettings)
    assert str(caught.value).startswith("recipe.yaml")
    assert sentence in str(caught.value)
