"""What an exported ensemble says about equal answers follows from its tasks, and is read back as it was written."""

import json
from pathlib import Path

import pytest
import yaml

from evomerge.errors import ConfigError
from evomerge.exchange import Sampling
from evomerge.study.answers import AnswerSettings, answers_of, load_answers
from evomerge.tasks.settings import TaskSettings

DATA = '{name: %s, data: d.jsonl, prompt: "{{question}}", score: %s, max_tokens: %d, stop: ["%s"]}'


def task(name: str, score: str, max_tokens: int = 16, stop: str = ";") -> TaskSettings:
    return TaskSettings.model_validate_json(json.dumps(yaml.safe_load(DATA % (name, score, max_tokens, stop))))


def test_one_task_says_it_all() -> None:
    found = answers_of([task("sums", "{numeric: {take: first}}")])
    assert found.to_plain() == {
        "equal": {"numeric": {"take": "first"}}, "max_tokens": 16, "temperature": 0.0, "stop": [";"],
    }  # fmt: skip
    assert found.sampling == Sampling(max_tokens=16, stop=(";",))
    key = found.keys(Path(), None)
    assert key("1,000 or 3") == key("1e3") != key("1")


def test_tasks_that_differ_are_told_apart_by_name() -> None:
    found = answers_of([task("sums", "numeric", 8), task("words", "f1", 32, "\\n")])
    assert found.to_plain() == {
        "equal": "exact", "max_tokens": 32, "temperature": 0.0, "stop": [], "tasks": {"sums": "numeric", "words": "f1"},
    }  # fmt: skip
    assert found.keys(Path(), "sums")("so 7.0") == found.keys(Path(), "sums")("7")
    assert found.keys(Path(), "words")("The end.") == found.keys(Path(), "words")("end")
    for name in (None, "unknown"):
        assert found.keys(Path(), name)("so 7.0") != found.keys(Path(), name)("7")


@pytest.mark.parametrize("score", ['{python: "my:score"}', "choice", "likelihood"])
def test_scorers_that_a_server_cannot_have_take_texts_as_they_are(score: str) -> None:
    assert answers_of([task("own", score)]).equal.name == "exact"


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    said = answers_of([task("sums", "numeric", 8), task("words", '{regex: "a(.)", group: 1}')])
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({"recipe": {"combine": "vote"}, "answers": said.to_plain()}))
    assert load_answers(file) == said


def test_a_job_without_holes_says_it_by_its_tasks_and_a_bare_recipe_says_nothing(tmp_path: Path) -> None:
    job, bare = tmp_path / "job.yaml", tmp_path / "bare.yaml"
    job.write_text("recipe: {combine: vote}\ntasks:\n  - " + DATA % ("sums", "numeric", 5, "x"))
    bare.write_text("method: linear\nmodels: [{model: a}]\n")
    assert load_answers(job) == answers_of([task("sums", "numeric", 5, "x")])
    assert load_answers(bare) == AnswerSettings()


def test_a_scorer_that_there_is_not_names_file_and_key(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("recipe: {combine: vote}\nanswers: {equal: numerical}\n")
    with pytest.raises(ConfigError, match=r"recipe.yaml:2: answers.equal: there is no scorer named 'numerical'"):
        load_answers(file)
