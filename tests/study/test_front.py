"""Fronts: the same as a plain comparison of all with all, and knees where a ruler finds them."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.study.front import Point, extremes, fronts, knee, non_dominated, representatives

sizes = st.integers(1, 4)
coarse = st.integers(-3, 3).map(float) | st.floats(-5, 5, allow_subnormal=False)
clouds = sizes.flatmap(lambda size: st.lists(st.tuples(*[coarse] * size), min_size=1, max_size=40))


def beats(points: Sequence[Point], one: int, other: int) -> bool:
    """Return whether a point beats another, by the words of the definition: of equal points the first."""
    left, right = points[one], points[other]
    if left == right:
        return one < other
    return all(left[place] >= right[place] for place in range(len(left)))


def plainly(points: Sequence[Point]) -> list[int]:
    every = range(len(points))
    return [one for one in every if not any(beats(points, other, one) for other in every if other != one)]


@given(clouds)
def test_the_front_is_what_comparing_all_with_all_finds(points: list[Point]) -> None:
    assert non_dominated(points) == plainly(points)


@given(clouds)
def test_layers_are_fronts_of_what_is_left(points: list[Point]) -> None:
    left, expected = list(range(len(points))), list[list[int]]()
    while left:
        expected.append([left[index] for index in plainly([points[other] for other in left])])
        left = [index for index in left if index not in expected[-1]]
    assert fronts(points, len(points)) == expected
    assert fronts(points, 1) == expected[:1]


@given(clouds, st.randoms(use_true_random=False))
def test_the_values_on_a_front_do_not_depend_on_the_order_of_evaluation(points: list[Point], dice: object) -> None:
    shuffled = list(points)
    dice.shuffle(shuffled)  # pyright: ignore
    assert {points[index] for index in non_dominated(points)} == {shuffled[index] for index in non_dominated(shuffled)}


@given(clouds)
def test_the_knee_is_one_of_the_points_and_scales_and_shifts_do_not_move_it(points: list[Point]) -> None:
    front = [points[index] for index in non_dominated(points)]
    assert 0 <= knee(front) < len(front)
    stretched = [tuple(2.0 ** (place + 1) * x for place, x in enumerate(point)) for point in front]
    assert knee(stretched) == knee(front)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(1.0, 0.0), (0.9, 0.9), (0.0, 1.0)], 1),
        ([(0.0, 0.0), (1.0, -1.0), (0.2, -0.1), (0.5, -0.6)], 2),  # beyond the line by .1/sqrt 2; the last is inside
        ([(1.0, 0.0), (0.0, 1.0)], 0),  # both lie on the line: the better in the first wins
        ([(0.3, 5.0)], 0),
        ([(1.0, 0.0, 0.0), (0.0, 1.0, 1.0), (0.7, 0.8, 0.7)], 2),  # the extremes of two objectives are one point
        ([(1.0, 0.0, 2.0), (0.8, 0.7, 2.0), (0.0, 1.0, 2.0)], 1),  # the third objective is the same for all
    ],
)
def test_knees_that_are_known(points: list[Point], expected: int) -> None:
    assert knee(points) == expected


def test_the_knee_of_two_objectives_is_farthest_from_the_line_through_the_extremes() -> None:
    front = [(math.cos(angle / 20), math.sin(angle / 20) ** 3) for angle in range(31)]
    low, high = (min(column) for column in zip(*front, strict=True)), (max(column) for column in zip(*front, strict=True))
    (x0, y0), (x1, y1) = low, high
    scaled = [((x - x0) / (x1 - x0), (y - y0) / (y1 - y0)) for x, y in front]
    (ax, ay), (bx, by) = (scaled[index] for index in extremes(front))
    areas = [(by - ay) * (x - ax) - (bx - ax) * (y - ay) for x, y in scaled]
    assert knee(front) == max(range(len(front)), key=lambda index: areas[index])


@given(clouds, st.integers(1, 12))
def test_representatives_are_few_and_keep_the_knee(points: list[Point], count: int) -> None:
    front = [points[index] for index in non_dominated(points)]
    chosen = representatives(front, count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, len(front))
    assert knee(front) in chosen
    if count > len(points[0]):
        assert set(extremes(front)) <= set(chosen)


def test_representatives_are_spread_evenly() -> None:
    front = [(float(place), -float(place)) for place in range(101)]
    chosen = [front[index][0] for index in representatives(front, 5)]
    assert chosen[0] == 0
    assert chosen[-1] == 100
    assert max(b - a for a, b in zip(chosen, chosen[1:], strict=False)) <= 50
