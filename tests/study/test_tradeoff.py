"""The front that a study delivers: made on common items, of merges alone, with single models beside it."""

from evomerge.recipe.tree import Source
from evomerge.study.fitness import Cost, Evaluated
from evomerge.study.objectives import COST, MEAN
from evomerge.study.result import Contender, Kind
from evomerge.study.tradeoff import Tradeoff, tradeoff

ONE = {"t": 1.0}
BOTH = (MEAN, COST)


def contender(name: str, kind: Kind = "searched") -> Contender:
    return Contender(name, kind, Source(name), name, vector=(0.5,))


def found(scores: list[float | None], usd: float | None) -> Evaluated:
    items = {str(number): score for number, score in enumerate(scores)}
    return Evaluated({"t": items}, {"t": {item: Cost(usd) for item in items}})


def made(scored: list[tuple[Contender, Evaluated]], coverage: float = 1.0) -> Tradeoff:
    result = tradeoff(scored, ONE, coverage, BOTH)
    assert result is not None
    return result


def names(result: Tradeoff) -> list[str]:
    return [one.contender.name for one in result.front]


GOOD, FAIR, POOR = [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]


def test_what_another_beats_is_not_delivered_and_the_knee_wins() -> None:
    result = made(
        [
            (contender("trial 1"), found(POOR, 0.001)),
            (contender("trial 2"), found(GOOD, 0.010)),
            (contender("trial 3"), found(POOR, 0.005)),
            (contender("uniform vote", "merge"), found(FAIR, 0.002)),
        ]
    )
    assert names(result) == ["trial 2", "uniform vote", "trial 1"]
    assert result.knee.contender.name == "uniform vote"
    assert [one.contender.name for one in result.others] == ["trial 3"]
    assert result.front[0].values == {"mean": 1.0, "cost": 10.0}


def test_of_equals_the_first_is_delivered() -> None:
    result = made([(contender("trial 1"), found(FAIR, 0.1)), (contender("trial 2"), found(FAIR, 0.1))])
    assert names(result) == ["trial 1"]


def test_single_models_make_no_front_and_may_beat_one() -> None:
    result = made(
        [
            (contender("small", "single"), found(POOR, 0.001)),
            (contender("large", "single"), found(GOOD, 0.010)),
            (contender("trial 1"), found(GOOD, 0.010)),
            (contender("trial 2"), found(FAIR, 0.002)),
        ]
    )
    assert names(result) == ["trial 1", "trial 2"]
    beaten = result.beaten_by(result.front[0])
    assert beaten is not None
    assert beaten.contender.name == "large"
    assert result.beaten_by(result.front[1]) is None


def test_values_are_those_on_items_that_all_answered() -> None:
    result = made(
        [
            (contender("trial 1"), found([1.0, 1.0, 0.0, None], 0.002)),
            (contender("trial 2"), found([1.0, 0.0, 0.0, 1.0], 0.001)),
        ],
        coverage=0.5,
    )
    assert [one.values["mean"] for one in result.front] == [2 / 3, 1 / 3]


def test_one_whose_costs_are_not_known_is_left_out() -> None:
    assert names(made([(contender("trial 1"), found(GOOD, None)), (contender("trial 2"), found(POOR, 0.1))])) == [
        "trial 2"
    ]
    assert tradeoff([(contender("trial 1"), found(GOOD, None))], ONE, 1.0, BOTH) is None
    assert tradeoff([], ONE, 1.0, BOTH) is None
