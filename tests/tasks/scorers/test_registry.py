import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evomerge.tasks import ScorerSettings, TextScorer, scorer
from evomerge.tasks.scorers import known

ROOT = Path(__file__).resolve().parents[3]
HOUSE = ("choice", "contains", "exact", "f1", "likelihood", "numeric", "python", "regex")


def problem(spec: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        ScorerSettings.model_validate_json(json.dumps(spec), strict=True)
    (error,) = caught.value.errors()
    return error["msg"]


def test_the_scorers_of_the_house_are_known() -> None:
    assert set(HOUSE) <= set(known())


@pytest.mark.parametrize(
    ("spec", "name", "options"),
    [
        ("exact", "exact", {}),
        ({"exact": {}}, "exact", {}),
        ({"exact": {"lowercase": True}}, "exact", {"lowercase": True}),
        ({"numeric": {"tolerance": 1}}, "numeric", {"tolerance": 1}),
        ({"regex": "a"}, "regex", {"pattern": "a"}),
        ({"regex": "(a)", "group": 1}, "regex", {"pattern": "(a)", "group": 1}),
        ({"group": 1, "regex": "(a)"}, "regex", {"pattern": "(a)", "group": 1}),
        ({"regex": {"pattern": "(a)"}, "group": 1}, "regex", {"pattern": "(a)", "group": 1}),
        ({"python": "my.module:score"}, "python", {"function": "my.module:score"}),
    ],
)
def test_the_grammar_is_a_word_or_a_map(spec: Any, name: str, options: dict[str, Any]) -> None:
    parsed = ScorerSettings.model_validate_json(json.dumps(spec), strict=True)
    assert (parsed.name, parsed.options) == (name, options)
    assert ScorerSettings.model_validate_json(parsed.model_dump_json(), strict=True) == parsed


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("exakt", "there is no scorer named 'exakt'; did you mean 'exact'?"),
        ("zzz", "there is no scorer named 'zzz'; known: choice, contains, exact"),
        ({"numerc": {}}, "did you mean 'numeric'?"),
        ({"numeric": {"tolerence": 1}}, "numeric: unknown key 'tolerence'; did you mean 'tolerance'?"),
        ({"numeric": {"tolerance": "1"}}, "numeric.tolerance: input should be a valid number, and it is '1'"),
        ({"numeric": {"tolerance": -1}}, "numeric.tolerance: input should be greater than or equal to 0"),
        ({"exact": {"lowercase": 1}}, "exact.lowercase: input should be a valid boolean"),
        ({"exact": True}, "exact takes a map of options, and here is True"),
        ({"exact": {}, "numeric": {}}, "a scorer has one name, and here are 'exact' and 'numeric'"),
        ({"regex": {"pattern": "a"}, "pattern": "b"}, "'pattern' of regex is given twice"),
        ({"regex": None}, "regex.pattern: input should be a valid string"),
        ({}, "a scorer is a word or a map"),
        (5, "a scorer is a word or a map"),
        (None, "a scorer is a word or a map"),
        (["exact"], "a scorer is a word or a map"),
    ],
)
def test_what_is_no_scorer_is_refused_in_one_sentence(spec: Any, words: str) -> None:
    assert words in problem(spec)


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="already"):
        scorer("exact")(TextScorer)


def test_the_schema_describes_every_scorer_of_the_house_and_its_options() -> None:
    word, mapping = ScorerSettings.model_json_schema()["anyOf"]
    assert set(word["anyOf"][0]["enum"]) == set(HOUSE) - {"regex", "python"}
    assert set(mapping["properties"]) == set(HOUSE)
    assert mapping["properties"]["numeric"]["properties"]["tolerance"]["default"] == 1e-6
    assert all(
        option.get("description")
        for kind in mapping["properties"].values()
        for form in kind.get("anyOf", [kind])
        for option in form.get("properties", {}).values()
    )


PLUGIN = """
from evomerge.tasks import TextScorer, scorer
from evomerge.recipe.settings import Settings

class LengthOptions(Settings):
    most: int = 10

@scorer("length", options=LengthOptions, main="most")
class Length(TextScorer):
    def compare(self, text, reference):
        return float(len(text) <= self.options.most)
"""
USE = """
import sys, warnings, pathlib
from evomerge.exchange import Answer
from evomerge.tasks import Item, Question, ScorerSettings
question = Question(Item("0", 1, {}), "?", ("x",))
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    made = ScorerSettings.model_validate({"length": 2}).make(pathlib.Path("."))
    print(made.score(question, Answer(text="ab")), made.score(question, Answer(text="abc")))
    try:
        ScorerSettings.model_validate("broken")
    except ValueError as error:
        print("there is no scorer named 'broken'" in str(error))
print(*(warning.message for warning in told), sep="\\n")
"""


def test_scorers_of_other_packages_are_found_and_broken_ones_skipped(tmp_path: Path) -> None:
    (tmp_path / "their_scorers.py").write_text(PLUGIN)
    (tmp_path / "their_broken.py").write_text("raise RuntimeError('half installed')\n")
    folder = tmp_path / "their_scorers-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: their-scorers\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[evomerge.scorers]\nbroken = their_broken:Broken\nlength = their_scorers:Length\nsilent = json:loads\n"
        "exact = their_broken:Exact\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", USE],
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[:2] == ["1.0 0.0", "True"]
    assert "the scorer plugin 'broken' (their_broken:Broken) cannot be loaded: half installed" in lines
    assert any("'silent' (json:loads) registers no scorer of that name" in line for line in lines)
    assert not any("'exact'" in line for line in lines)
