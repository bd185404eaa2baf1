"""init: what it drafts passes `evomerge check` and runs, and what it cannot draft it says."""

import json
from pathlib import Path

import pytest

from evomerge.recipe.tree import Merge, Per
from evomerge.study.job import Job, load_job
from tests.cli.conftest import Command

ONE, TWO, BASE = "models/one", "models/two", "models/base"


def items(file: Path, count: int, **fields: str) -> Path:
    named = {"question": "{0}+1=", "answer": "{1}"} | fields
    rows = ({key: text.format(n, n + 1) for key, text in named.items() if text} for n in range(count))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def merge(job: Job) -> Merge:
    assert isinstance(job.template, Merge)
    return job.template


@pytest.mark.parametrize(
    ("models", "method", "becomes"),
    [
        ([ONE, TWO, "--base", BASE], "task_arithmetic", "a checkpoint"),
        ([ONE, TWO], "linear", "a checkpoint"),
        (["adapters/short", "adapters/long"], "task_arithmetic", "an adapter"),
        (["adapters/short", "--base", BASE], "task_arithmetic", "an adapter"),
    ],
)
def test_a_drafted_job_passes_check(
    models: list[str], method: str, becomes: str, place: Path, command: Command
) -> None:
    done = command("init", *models, "--data", "items.jsonl", "--trials", "9", "--out", "new.yaml")
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("Next: evomerge check new.yaml --try 5\n")
    assert merge(load_job(Path("new.yaml"))).method == method
    checked = command("check", "new.yaml")
    assert (checked.code, checked.err) == (0, "")
    assert f"result     {becomes}" in checked.out


def test_a_drafted_job_runs(place: Path, command: Command) -> None:
    items(place / "few.jsonl", 9)
    for models in ([ONE, TWO, "--base", BASE], ["adapters/short", "adapters/long"]):
        out = f"{models[0].replace('/', '-')}.yaml"
        assert command("init", *models, "--data", "few.jsonl", "--trials", "2", "--out", out).code == 0
        done = command("run", out)
        assert done.code == 0
        assert "Merged model:" in done.out


def test_the_genome_grows_with_trials_and_items(place: Path, command: Command) -> None:
    items(place / "many.jsonl", 200)
    found: list[Per] = []
    for model, data, trials in (
        (ONE, "many.jsonl", 8),
        (ONE, "many.jsonl", 60),
        (ONE, "many.jsonl", 1000),
        ("models/wide", "many.jsonl", 1000),
        ("models/wide", "items.jsonl", 1000),
    ):
        Path("job.yaml").unlink()
        words = ["--base", BASE if model == ONE else model, "--data", data, "--trials", str(trials)]
        assert command("init", model, TWO if model == ONE else model, *words).code == 0
        found.append(merge(load_job(Path("job.yaml"))).per)
    names = ("attention", "mlp", "rest")
    # four parts of the depth need four layers, and the small models have two
    assert found == [Per(), Per(groups=names), Per(groups=names), Per(groups=names, layers=4), Per()]


@pytest.mark.parametrize(
    ("answer", "score"), [("{1}", "numeric"), ("yes {1}", "exact"), ("a sentence about {1}", "f1")]
)
def test_the_scorer_fits_the_answers(answer: str, score: str, place: Path, command: Command) -> None:
    items(place / "own.jsonl", 30, answer=answer)
    assert command("init", ONE, TWO, "--data", "own.jsonl", "--out", "new.yaml").code == 0
    [task] = load_job(Path("new.yaml")).settings.tasks
    assert task.score.model_dump() == score


def test_odd_names_of_files_and_fields_are_written_so_that_they_are_read_again(place: Path, command: Command) -> None:
    folder = place / "my data, old"
    folder.mkdir()
    items(folder / "true.jsonl", 20, **{"question": "", 'the "question"': "{0}+1="})
    items(place / "a, b.jsonl", 20, **{"question": "", 'the "question"': "{0}+2="})
    items(place / "true.jsonl", 20, **{"question": "", 'the "question"': "{0}+3="})
    data = [word for file in (folder / "true.jsonl", "a, b.jsonl", "true.jsonl") for word in ("--data", file)]
    done = command("init", ONE, TWO, *data, "--question", 'the "question"', "--out", "a job.yaml")
    assert (done.code, done.err) == (0, "")
    assert "evomerge check 'a job.yaml' --try 5" in done.out
    assert [task.name for task in load_job(Path("a job.yaml")).settings.tasks] == ["true", "a- b", "true 2"]
    checked = command("check", "a job.yaml", "--try", "1")
    assert checked.code == 0
    assert all(f"+{number}=" in checked.out for number in (1, 2, 3))


def test_the_job_may_stand_in_another_folder_than_its_models(place: Path, command: Command) -> None:
    (place / "jobs").mkdir()
    assert command("init", ONE, TWO, "--base", BASE, "--data", "items.jsonl", "--out", "jobs/new.yaml").code == 0
    assert command("check", "jobs/new.yaml").code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["https://example.org/v1#small", ONE], "models/one: weights and endpoints cannot be combined yet"),
        ([ONE, TWO, "--base", "http://localhost:1/v1"], "--base http://localhost:1/v1: an endpoint is no base"),
        ([ONE, TWO, "--api-key-env", "KEY"], "--api-key-env: only endpoints take keys, and none is named"),
        ([ONE], "models/one: one model alone leaves nothing to search; name another, or its --base"),
        ([ONE, "./nope"], "nope does not exist; correct the path of the model"),
        ([ONE, "models/wide"], "merge only models of one architecture"),
        ([ONE, TWO, "--question", "ask"], "not every item has the field 'ask'; the first has 'question', 'answer'"),
        ([ONE, TWO, "--out", "job.yaml"], "job.yaml: this file exists; remove it, or name another with --out"),
        ([ONE, TWO, "--out", "nope/job.yaml"], "nope/job.yaml: there is no folder nope; make it"),
        ([ONE, TWO, "--out", "/proc/new.yaml"], "/proc/new.yaml: this file cannot be written ("),
        ([ONE, TWO, "--data", "odd.jsonl"], "which of the fields 'ask', 'say' is meant? Name it with --question"),
        ([ONE, TWO, "--data", "two.jsonl"], "two.jsonl has 2 different items, and 3 are needed"),
    ],
)  # fmt: skip
def test_what_cannot_be_drafted_is_said_in_one_line_and_nothing_is_written(
    words: list[str], sentence: str, place: Path, command: Command
) -> None:
    (place / "odd.jsonl").write_text('{"ask": "a", "say": "b"}\n')
    items(place / "two.jsonl", 2)
    before = sorted(place.rglob("*"))
    done = command("init", "--data", "items.jsonl", "--out", "new.yaml", *words)
    assert (done.code, done.out) == (78, "")
    assert sentence in done.err
    assert done.err.count("\n") == 1
    assert sorted(place.rglob("*")) == before
