"""Fitness and intervals: numbers that can be believed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.study.fitness import Scores, fitness, paired_interval, score_interval

ONE = {"t": 1.0}


def scores(*values: float | None) -> Scores:
    return {"t": {str(index): value for index, value in enumerate(values)}}


def test_the_fitness_is_the_weighted_mean_of_task_means() -> None:
    both = {"a": {"1": 1.0, "2": 0.0}, "b": {"1": 1.0, "2": 1.0, "3": 1.0}}
    found = fitness(both, {"a": 1.0, "b": 3.0})
    assert found is not None
    assert found.value == pytest.approx(0.25 * 0.5 + 0.75 * 1.0)
    assert found.tasks == {"a": 0.5, "b": 1.0}
    assert found.items == 5


@given(st.lists(st.floats(0, 1), min_size=2, max_size=50))
def test_the_standard_error_is_that_of_a_mean(values: list[float]) -> None:
    found = fitness(scores(*values), ONE)
    assert found is not None
    assert found.standard_error == pytest.approx(np.std(values, ddof=1) / math.sqrt(len(values)), abs=1e-9)


def test_a_missing_answer_lowers_the_coverage_not_the_fitness() -> None:
    found = fitness(scores(1.0, None, 1.0, None), ONE)
    assert found is not None
    assert (found.value, found.coverage, found.items) == (1.0, 0.5, 2)


def test_without_any_answer_there_is_no_fitness() -> None:
    assert fitness(scores(None, None), ONE) is None
    assert fitness({"a": {"1": 1.0}, "b": {"1": None}}, {"a": 1.0, "b": 1.0}) is None
    assert fitness({}, {}) is None
    assert score_interval(scores(None), ONE) is None


def test_all_right_is_not_taken_for_certain() -> None:
    found = score_interval(scores(*[1.0] * 20), ONE)
    assert found is not None
    assert found.value == 1.0
    assert found.high == 1.0
    assert 0.7 < found.low < 0.95


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=30))
def test_intervals_stay_where_scores_can_be(values: list[float]) -> None:
    found = score_interval(scores(*values), ONE)
    difference = paired_interval(scores(*values), scores(*[1.0] * len(values)), ONE)
    assert found is not None
    assert difference is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert -1 <= difference.low <= difference.value <= difference.high <= 1


def test_unbounded_scores_are_taken_as_they_are() -> None:
    found = score_interval(scores(-2.0, -4.0), ONE, bounded=False)
    assert found is not None
    assert found.value == -3.0
    assert found.high - found.low == pytest.approx(2 * 1.959964 * 1.0)


def test_a_pair_is_compared_on_the_items_both_have_answered() -> None:
    found = paired_interval(scores(1.0, 1.0, None, 0.0), scores(0.0, None, 0.0, 0.0), ONE)
    assert found is not None
    assert found.items == 2
    assert found.value == 0.5


def test_equal_answers_differ_by_nothing() -> None:
    same = scores(*[1.0, 0.0] * 50)
    found = paired_interval(same, same, ONE)
    assert found is not None
    assert found.value == 0
    assert found.low < 0 < found.high
    assert not found.above_zero


def test_pairing_sees_what_separate_intervals_cannot() -> None:
    worse = [1.0, 0.0] * 100
    better = [1.0] * 20 + worse[20:]
    found = paired_interval(scores(*better), scores(*worse), ONE)
    one, other = score_interval(scores(*better), ONE), score_interval(scores(*worse), ONE)
    assert found is not None
    assert one is not None
    assert other is not None
    assert found.above_zero
    assert one.low < other.high


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    for truth in (0.5, 0.9, 0.98):
        covered = 0
        for _ in range(600):
            found = score_interval(scores(*(generator.random(60) < truth).astype(float).tolist()), ONE)
            assert found is not None
            covered += found.low <= truth <= found.high
        assert covered / 600 > 0.92, truth


def test_the_paired_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    for up, down in ((0.2, 0.2), (0.1, 0.02), (0.03, 0.0)):
        covered = 0
        for _ in range(600):
            draw = generator.random(100)
            ours = (draw < up).astype(float)
            theirs = ((draw >= up) & (draw < up + down)).astype(float)
            found = paired_interval(scores(*ours.tolist()), scores(*theirs.tolist()), ONE)
            assert found is not None
            covered += found.low <= up - down <= found.high
        assert covered / 600 > 0.92, (up, down)
