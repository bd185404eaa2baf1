"""The winner: chosen on items that all contenders answered."""

import pytest

from evomerge.recipe.tree import Source
from evomerge.study.choose import choose
from evomerge.study.fitness import Scores
from evomerge.study.result import Contender, Kind

ONE = {"t": 1.0}


def contender(name: str, kind: Kind = "searched") -> Contender:
    return Contender(name, kind, Source(name), name)


def scores(*values: float | None) -> Scores:
    return {"t": {str(number): value for number, value in enumerate(values)}}


def names(scored: list[tuple[Contender, Scores]], coverage: float = 1.0) -> tuple[str | None, str | None]:
    winner, single = choose(scored, ONE, coverage)
    return winner and winner.name, single and single.name


def test_the_best_merge_and_the_best_single_model_are_chosen() -> None:
    scored = [
        (contender("base", "base"), scores(0, 1, 0)),
        (contender("one", "single"), scores(1, 1, 0)),
        (contender("average", "merge"), scores(0, 0, 1)),
        (contender("trial 1"), scores(1, 1, 1)),
    ]
    assert names(scored) == ("trial 1", "one")
    assert names(scored[:3]) == ("average", "one")
    assert names(scored[2:]) == ("trial 1", None)
    assert names(scored[:2]) == (None, "one")
    assert names([]) == (None, None)


def test_of_equals_the_first_wins() -> None:
    scored = [(contender("average", "merge"), scores(1, 0)), (contender("trial 1"), scores(0, 1))]
    assert names(scored) == ("average", None)


@pytest.mark.parametrize("coverage", [0.5, 1.0])
def test_none_wins_by_leaving_out_what_is_hard(coverage: float) -> None:
    scored = [(contender("whole"), scores(1, 1, 0, 1)), (contender("gaps"), scores(1, 0, None, 1))]
    assert names(scored, coverage) == ("whole", None)
    lucky = [(contender("whole"), scores(1, 1, 0, 0)), (contender("gaps"), scores(1, None, None, None))]
    assert names(lucky, coverage) == ("whole", None)


def test_items_that_nobody_answers_do_not_matter() -> None:
    scored = [(contender("one"), scores(1, 0, None)), (contender("two"), scores(1, 1, None))]
    assert names(scored) == ("two", None)
