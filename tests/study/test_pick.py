"""Picking from a front: the rules, what they read, and what is refused."""

import pytest

from evomerge.errors import ConfigError
from evomerge.study.objectives import COST, LATENCY, MEAN, Values
from evomerge.study.pick import Pick, parse_pick, pick

BOTH = (MEAN, COST)
FRONT: list[Values] = [
    {"mean": 0.95, "cost": 4.0},
    {"mean": 0.90, "cost": 1.0},
    {"mean": 0.80, "cost": 0.5},
    {"mean": 0.40, "cost": 0.1},
]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("knee", 1),
        ("cheapest:0", 3),
        ("cheapest:0.41", 2),
        ("cheapest:0.80", 2),
        ("cheapest:.95", 0),
        ("best-below:100", 0),
        ("best-below:4", 1),
        ("best-below:0.50", 3),
        ("best-below:0.51", 2),
    ],
)
def test_each_rule_picks_its_recipe(rule: str, expected: int) -> None:
    assert pick(FRONT, BOTH, parse_pick(rule)) == expected


def test_a_mean_that_is_a_bound_but_for_rounding_reaches_it() -> None:
    assert pick([{"mean": 0.1 + 0.7 - 1e-16, "cost": 1.0}], BOTH, Pick("cheapest", 0.8)) == 0


def test_of_equals_the_better_in_what_is_left_is_picked() -> None:
    objectives = (MEAN, COST, LATENCY)
    front = [
        {"mean": 0.9, "cost": 1.0, "latency": 3.0},
        {"mean": 0.9, "cost": 1.0, "latency": 2.0},
        {"mean": 0.8, "cost": 1.0, "latency": 1.0},
    ]
    assert pick(front, objectives, Pick("cheapest", 0.5)) == 1
    assert pick(front, objectives, Pick("best-below", 2.0)) == 1


@pytest.mark.parametrize(
    "rule", ["", "best", "knee:1", "cheapest", "cheapest:", "cheapest:good", "best-below:-1", "best-below:nan", "best:1"]
)
def test_what_is_no_rule_gets_one_sentence_with_the_rules(rule: str) -> None:
    with pytest.raises(ConfigError, match=r"--pick .*write knee, cheapest:QUALITY .* or best-below:USD"):
        parse_pick(rule)


def test_bounds_that_nothing_meets_say_how_near_the_front_comes() -> None:
    with pytest.raises(ConfigError, match=r"--pick cheapest:0\.99: no recipe .* reaches 0\.99; the best reaches 0\.950"):
        pick(FRONT, BOTH, parse_pick("cheapest:0.99"))
    with pytest.raises(ConfigError, match=r"costs less than 0\.1; the cheapest costs 0\.1000 USD per 1,000 questions"):
        pick(FRONT, BOTH, parse_pick("best-below:0.1"))
    with pytest.raises(ConfigError, match="did not search for cost"):
        pick([{"mean": 1.0, "latency": 1.0}], (MEAN, LATENCY), parse_pick("cheapest:0.5"))
