from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.tasks.scorers.numeric import Numeric, NumericOptions

Worth = Callable[..., float]


@pytest.fixture(scope="module")
def numeric() -> Numeric:
    return Numeric(NumericOptions(), Path())


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", "42"),
        ("The answer is 42.", "42"),
        ("first 1, then 2, so 3", "3"),
        ("1,234.5", "1234.5"),
        ("12,345,678", "12345678"),
        ("1,2", "2"),
        ("-3", "-3"),
        ("\u22123", "-3"),
        ("+3", "3"),
        ("x=-3", "-3"),
        ("(-3)", "-3"),
        ("10-3", "3"),
        ("10 - 3", "3"),
        ("pages 5-7", "7"),
        ("1e3", "1000"),
        ("1.5E-3", "0.0015"),
        (".5", "0.5"),
        ("0.50", "0.5"),
        ("7.", "7"),
        ("version 1.2.", "1.2"),
        ("3/4", "0.75"),
        ("It is 1/2.", "0.5"),
        ("-1/2", "-0.5"),
        ("12/05/2024", "2024"),
        ("3/0", "0"),
        ("$1,000", "1000"),
        ("-$5", "-5"),
        ("50%", "50"),
        ("42kg", "42"),
        ("H2O", "2"),
        ("007", "7"),
        ("#### 72", "72"),
    ],
)
def test_the_last_number_is_read_as_documented(numeric: Numeric, text: str, number: str) -> None:
    assert numeric.number(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "none", "-", ".", ",", "one half", "½"])
def test_a_text_without_a_number_has_none(numeric: Numeric, text: str) -> None:
    assert numeric.number(text) is None


def test_answers_without_a_number_are_wrong(worth: Worth) -> None:
    assert worth("numeric", "I do not know", "4") == 0
    assert worth("numeric", "", "0") == 0


def test_the_tolerance_is_an_absolute_difference(worth: Worth) -> None:
    assert worth("numeric", "0.1 + 0.2 = 0.30000000000000004", "0.3") == 1
    assert worth("numeric", "12345678", "12345679") == 0
    assert worth("numeric", "0.333", "1/3") == 0
    assert worth({"numeric": {"tolerance": 0.01}}, "0.333", "1/3") == 1
    assert worth({"numeric": {"tolerance": 0.01}}, "0.35", "0.34") == 1
    assert worth({"numeric": {"tolerance": 0}}, "0.30000000000000004", "0.3") == 0


def test_long_numbers_are_compared_exactly(worth: Worth) -> None:
    long = "9" * 6000
    assert worth("numeric", long, long) == 1
    assert worth("numeric", long, long[:-1] + "8") == 0
    assert worth("numeric", "1e9999", "1e9998") == 0
    assert worth("numeric", "1e9999", "1e9999") == 1
    assert worth("numeric", "1e99999999999999", "5") == 0


def test_the_first_number_can_be_taken(worth: Worth) -> None:
    assert worth({"numeric": {"take": "first"}}, "4, as 2 + 2 is", "4") == 1
    assert worth("numeric", "4, as 2 + 2 is", "4") == 0


@given(number=st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**12), max_value=10**12))
def test_whatever_way_a_number_is_written_its_key_is_one(number: Decimal) -> None:
    numeric = Numeric(NumericOptions(), Path())
    ways = [f"{number:f}", f"{number:,f}", f"so: {number:f}!", f"{number:E}"]
    assert {numeric.number(way) for way in ways} == {number}
    assert len({numeric.key(way) for way in ways}) == 1


def test_keys_of_other_numbers_differ(numeric: Numeric) -> None:
    assert numeric.key("1,000") == numeric.key("1e3")
    assert numeric.key("-0") == numeric.key("0.0")
    assert numeric.key("100") != numeric.key("10")
    assert numeric.key("none") == ""
