"""Holes: values and the numbers in [0, 1] that stand for them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.recipe.holes import Hole

units = st.floats(0, 1)


@st.composite
def ranges(draw: st.DrawFn) -> Hole:
    log = draw(st.booleans())
    whole = draw(st.booleans())
    if whole:
        low = draw(st.integers(1 if log else -1000, 1000))
        return Hole(low, low + draw(st.integers(1, 1000)), log=log, int=True)
    low = draw(st.floats(1e-6, 1e3) if log else st.floats(-1e3, 1e3))
    return Hole(low, low + draw(st.floats(1e-3, 1e3)), log=log)


@given(ranges(), units)
def test_a_value_reads_back_as_itself(hole: Hole, unit: float) -> None:
    value = hole.value(unit)
    assert hole.value(hole.unit(value)) == value


@given(ranges(), units)
def test_a_value_lies_in_its_range_up_to_rounding(hole: Hole, unit: float) -> None:
    assert hole.low is not None
    assert hole.high is not None
    slack = 1e-8 * max(abs(hole.low), abs(hole.high))
    value = hole.value(unit)
    assert not isinstance(value, str)
    assert hole.low - slack <= value <= hole.high + slack


@given(ranges(), units, units)
def test_values_grow_with_the_unit(hole: Hole, first: float, second: float) -> None:
    low, high = sorted((first, second))
    one, other = hole.value(low), hole.value(high)
    assert not isinstance(one, str)
    assert not isinstance(other, str)
    assert one <= other


@given(st.integers(1, 7), units)
def test_every_choice_has_an_equal_share(count: int, unit: float) -> None:
    hole = Hole(choices=tuple(f"c{i}" for i in range(count)))
    assert hole.value(unit) == f"c{min(int(unit * count), count - 1)}"
    assert hole.value(hole.unit(hole.value(unit))) == hole.value(unit)


def test_whole_numbers_reach_both_ends() -> None:
    hole = Hole(2, 5, int=True)
    assert {hole.value(i / 100) for i in range(101)} == {2, 3, 4, 5}


def test_floats_are_rounded_to_nine_digits() -> None:
    assert Hole(0, 3).value(1 / 3 + 1e-13) == 1.0
    assert Hole(0, 1).value(0.123456789123) == 0.123456789
    assert Hole(-1, 1).value(0.5) == 0.0


def test_the_start_is_where_it_is_said_or_in_the_middle() -> None:
    assert Hole(0, 10, start=2.5).start_unit == 0.25
    assert Hole(0, 10).start_unit == 0.5
    assert Hole(choices=("a", "b", "c", "d")).start_unit == 0.125


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"low": 2, "high": 1}, "must be below"),
        ({"low": 1, "high": 1}, "must be below"),
        ({"low": 0, "high": 1, "log": True}, "above zero"),
        ({"low": 0.5, "high": 2, "int": True}, "whole numbers"),
        ({"low": 0}, "needs low and high"),
        ({}, "needs low and high"),
        ({"low": 0, "high": float("inf")}, "finite"),
        ({"choices": ("a",), "low": 0}, "not both"),
        ({"choices": ("a", "a")}, "twice"),
        ({"choices": ("a", "b"), "start": "c"}, "not among"),
        ({"low": 0, "high": 1, "start": 2}, "not between"),
        ({"low": 0, "high": 1, "start": "x"}, "not between"),
    ],
)
def test_ranges_that_cannot_be_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Hole(**arguments)


@pytest.mark.parametrize("value", [-0.1, 1.1, "x", True])
def test_a_value_outside_is_refused(value: float | str) -> None:
    with pytest.raises(ValueError, match="not"):
        Hole(0, 1).unit(value)


def test_a_choice_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="not one of"):
        Hole(choices=("a", "b")).unit("c")
