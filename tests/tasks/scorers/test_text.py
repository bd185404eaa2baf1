from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge.tasks import ScorerSettings

Worth = Callable[..., float]


@pytest.mark.parametrize(
    ("spec", "text", "reference", "value"),
    [
        ("exact", "edcba", "edcba", 1),
        ("exact", "  edcba\n", "edcba", 1),
        ("exact", "edcba", " edcba", 1),
        ("exact", "Edcba", "edcba", 0),
        ("exact", "edcb a", "edcba", 0),
        ("exact", "", "", 1),
        ("exact", "", "a", 0),
        ("exact", "caf\u0065\u0301", "caf\u00e9", 1),
        ({"exact": {"lowercase": True}}, "STRASSE", "straße", 1),
        ({"exact": {"lowercase": True}}, "İ", "i̇", 1),
        ({"exact": {"strip": False}}, "a ", "a", 0),
        ({"exact": {"drop_punctuation": True}}, "“Yes.”", "yes", 0),
        ({"exact": {"drop_punctuation": True, "lowercase": True}}, "“Yes.”", "yes", 1),
        ({"exact": {"drop_punctuation": True}}, "yes !", "yes", 1),
        ("contains", "The answer is Paris.", "Paris", 1),
        ("contains", "The answer is Paris.", " Paris ", 1),
        ("contains", "The answer is paris.", "Paris", 0),
        ("contains", "", "Paris", 0),
        ("contains", "a.c", "abc", 0),
        ({"contains": {"lowercase": True}}, "PARIS it is", "Paris", 1),
        ("contains", "10", "1", 1),
        ({"contains": {"words": True}}, "10", "1", 0),
        ({"contains": {"words": True}}, "(1)", "1", 1),
        ({"contains": {"words": True}}, "it is C++, no?", "C++", 1),
    ],
)
def test_text_is_compared_as_documented(worth: Worth, spec: Any, text: str, reference: str, value: float) -> None:
    assert worth(spec, text, reference) == value


def test_of_several_right_answers_any_will_do(worth: Worth) -> None:
    assert worth("exact", "two", "2", "two") == 1
    assert worth("contains", "it is 2", "two", "2") == 1
    assert worth("exact", "three", "2", "two") == 0


def test_keys_agree_for_texts_that_are_the_same_to_the_scorer(tmp_path: Path) -> None:
    loose = ScorerSettings.model_validate({"exact": {"lowercase": True, "drop_punctuation": True}}).make(tmp_path)
    assert loose.key(" Paris!\n") == loose.key("paris")
    strict = ScorerSettings.model_validate("exact").make(tmp_path)
    assert strict.key(" Paris!\n") != strict.key("paris")
    assert strict.key(" Paris\n") == strict.key("Paris")
