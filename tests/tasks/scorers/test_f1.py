from collections.abc import Callable
from pathlib import Path

import pytest

from evomerge.tasks import ScorerSettings

Worth = Callable[..., float]


@pytest.mark.parametrize(
    ("text", "reference", "value"),
    [
        ("the quick brown fox", "quick brown fox", 1),
        ("Quick, brown: FOX!", "a quick brown fox", 1),
        ("quick fox", "quick brown fox", 2 * 1 * (2 / 3) / (1 + 2 / 3)),
        ("quick quick fox", "quick brown fox", 2 / 3),
        ("cat", "dog", 0),
        ("", "dog", 0),
        ("", "", 1),
        ("the", "a", 1),
        ("dog", "the", 0),
    ],
)
def test_shared_words_are_counted_as_in_squad(worth: Worth, text: str, reference: str, value: float) -> None:
    assert worth("f1", text, reference) == pytest.approx(value)


def test_of_several_right_answers_the_best_counts(worth: Worth) -> None:
    assert worth("f1", "Barack Obama", "Obama", "Barack Hussein Obama", "Barack Obama") == 1


def test_the_key_is_the_words_that_count(tmp_path: Path) -> None:
    f1 = ScorerSettings.model_validate("f1").make(tmp_path)
    assert f1.key("The  Quick fox!") == f1.key("quick fox") == "quick fox"
