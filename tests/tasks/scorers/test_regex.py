from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evomerge.tasks import ScorerSettings

Worth = Callable[..., float]


@pytest.mark.parametrize(
    ("spec", "text", "reference", "value"),
    [
        ({"regex": r"answer: (\w+)"}, "my answer: blue, or", "blue", 1),
        ({"regex": r"answer: (\w+)"}, "my answer: blue, or", "red", 0),
        ({"regex": r"answer: (\w+)"}, "blue", "blue", 0),
        ({"regex": r"\d+"}, "between 3 and 4", "3", 1),
        ({"regex": r"\d+", "take": "last"}, "between 3 and 4", "4", 1),
        ({"regex": {"pattern": r"(\d+) of (\d+)", "group": 2}}, "3 of 4", "4", 1),
        ({"regex": r"(\d+) of (\d+)", "group": 0}, "3 of 4", "3 of 4", 1),
        ({"regex": r"(?P<part>\d+) of (?P<all>\d+)", "group": "all"}, "3 of 4", "4", 1),
        ({"regex": r"(?i)ANSWER:(.*)"}, "answer: blue ", "blue", 1),
        ({"regex": r"(a)|b", "group": 1}, "b", "a", 0),
        ({"regex": r"(a)|b"}, "b", "", 0),
    ],
)
def test_what_the_pattern_finds_is_compared(worth: Worth, spec: Any, text: str, reference: str, value: float) -> None:
    assert worth(spec, text, reference) == value


def test_without_comparing_no_reference_is_needed(worth: Worth, tmp_path: Path) -> None:
    spec = {"regex": r"^\d+$", "compare": False}
    assert ScorerSettings.model_validate(spec).make(tmp_path).needs_reference is False
    assert worth(spec, "12") == 1
    assert worth(spec, "12 apples") == 0


def test_the_key_is_what_is_found(tmp_path: Path) -> None:
    scorer = ScorerSettings.model_validate({"regex": r"answer: (\w+)"}).make(tmp_path)
    assert scorer.key("I say: answer: blue!") == "blue"
    assert scorer.key("no idea") == ""


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"regex": "(a"}, "'(a' is not a regular expression"),
        ({"regex": "(a)", "group": 2}, "the pattern has no group 2; it has 0, 1"),
        ({"regex": "(a)", "group": "x"}, "the pattern has no group 'x'"),
        ({"regex": {}}, "'pattern' is missing"),
        ("regex", "'pattern' is missing"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused(spec: Any, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ScorerSettings.model_validate(spec)
    assert words in str(caught.value)
