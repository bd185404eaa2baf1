"""What a person wrote about an ensemble is checked, with the place where it stands."""

from collections.abc import Iterator

import pytest

from evomerge.recipe.holes import Hole
from evomerge.recipe.tree import Endpoint, Ensemble, Member
from evomerge.recipe.values import ByGroup, Gradient, Params
from evomerge.strategies.ensemble import registry
from evomerge.strategies.ensemble.registry import combiner, get
from evomerge.strategies.ensemble.resolve import check_ensemble, parameters_for
from evomerge.strategies.merge.protocol import Parameter
from evomerge.strategies.merge.resolve import RecipeProblem


def ensemble(*each: Params, combine: str | Hole = "vote", **params: object) -> Ensemble:
    members = tuple(Member(Endpoint(f"e{index}"), values) for index, values in enumerate(each))
    return Ensemble(combine, members, params)  # pyright: ignore[reportArgumentType]  # wrong values are what is tested


@pytest.fixture
def quorum() -> Iterator[None]:
    """A second combiner, with a parameter of the ensemble's own."""
    before = dict(registry.combiners())
    share = Parameter("share", "ensemble", 0.5, "Of how many.", minimum=0, maximum=1)
    combiner("quorum", title="Quorum", parameters=(share,), source="nobody")(lambda replies, _: replies[0])
    yield
    registry._declared.clear()
    registry._declared.update(before)


def test_defaults_are_filled_in() -> None:
    found = parameters_for(ensemble({"weight": -0.5}, {}), get("vote"))
    assert found.numbers("weight") == (-0.5, 1.0)


@pytest.mark.parametrize(
    ("recipe", "path", "sentence"),
    [
        (ensemble({}, combine="votes"), "combine", "did you mean 'vote'"),
        (ensemble({}, combine=Hole(low=0, high=1)), "combine", "a hole with choices of names"),
        (ensemble({}, {"wieght": 1.0}), "members[1].wieght", "did you mean 'weight'"),
        (ensemble({}, weight=1.0), "weight", "belongs to each of the members"),
        (ensemble({"weight": "much"}), "members[0].weight", "must be a number, and is 'much'"),
        (ensemble({"weight": Gradient((0.0, 1.0))}), "members[0].weight", "has no layers or groups"),
        (ensemble({"weight": ByGroup({"mlp": 1.0})}), "members[0].weight", "has no layers or groups"),
        (ensemble({"weight": Hole(choices=("a", "b"))}), "members[0].weight", "must be a number"),
    ],
)
def test_what_cannot_be_is_said_with_its_place(recipe: Ensemble, path: str, sentence: str) -> None:
    with pytest.raises(RecipeProblem) as caught:
        check_ensemble(recipe)
    assert str(caught.value).startswith(f"{path}: ")
    assert sentence in str(caught.value)


def test_a_hole_that_is_still_open_has_no_value() -> None:
    with pytest.raises(RecipeProblem, match="is no single value"):
        parameters_for(ensemble({"weight": Hole(low=0, high=1)}), get("vote"))


@pytest.mark.usefixtures("quorum")
def test_a_parameter_of_one_combiner_needs_a_condition_where_the_combiner_is_searched() -> None:
    both = Hole(choices=("vote", "quorum"))
    with pytest.raises(RecipeProblem, match=r"share: vote does not have it; .*when: \{combine: \[quorum\]\}"):
        check_ensemble(ensemble({}, combine=both, share=0.5))
    only = Hole(low=0, high=1, when={"combine": ("quorum",)})
    check_ensemble(ensemble({}, combine=both, share=only))
    assert parameters_for(ensemble({}, combine="quorum", share=0.25), get("quorum")).number("share") == 0.25
    with pytest.raises(RecipeProblem, match="vote has no such parameter"):
        parameters_for(ensemble({}, share=0.25), get("vote"))
