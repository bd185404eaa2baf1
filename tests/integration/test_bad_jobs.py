"""Bad jobs and items, end to end: one sentence with file, key and fix, the right exit code, and nothing is spent."""

from pathlib import Path

import pytest

from tests.support.commands import JOB, everything_in, execute
from tests.support.refusals import CONFIGURATION, Refused, check_refusal
from tests.support.study import ROOT

MODELS = "  models:\n"
SEARCH = "search: {strategy"

WRONG_JOBS = [
    (SEARCH, "serach: {strategy", "11: serach: unknown key 'serach'; did you mean 'search'?"),
    ("trials", "trails", "11: search.trails: unknown key 'trails'; did you mean 'trials'?"),
    ("prompt", "promt", "8: tasks[0].promt: unknown key 'promt'; did you mean 'prompt'?"),
    ("high: 1}", "hihg: 1}", "5: recipe.models[0].weight.hihg: unknown key 'hihg'; did you mean 'high'?"),
    (
        "score: exact",
        "score: {numeric: {tolerence: 1}}",
        "8: tasks[0].score: numeric: unknown key 'tolerence'; did you mean 'tolerance'?",
    ),
    (MODELS, "  scael: 1\n" + MODELS, "4: recipe.scael: task_arithmetic has no such parameter for the merge itself"),
    ("weight", "wieght", "no such parameter for each of the models; did you mean 'weight'?"),
    (SEARCH, "splits: {}\n" + SEARCH, "11: the key 'splits' stands here twice (first in line 10); remove one"),
    ("method: ", "method: &m ", "2: anchors and aliases (&, *) are not used here; write the value out"),
    ("base: models/base", "base: *m", "3: anchors and aliases (&, *) are not used here; write the value out"),
    (SEARCH, "<<: {}\n" + SEARCH, "11: merge keys (<<) are not used here; write the values out"),
    (
        "models/base",
        "!!python/object:os.system x",
        "3: tags (tag:yaml.org,2002:python/object:os.system) are not used here; remove it",
    ),
    ("method: ", "method: " + "[" * 5000, "2: nested more than 32 levels deep; no job needs that"),
    (
        "base: models/base",
        "base: " + "{method: linear, models: [{model: " * 5000,
        "3: nested more than 32 levels deep; no job needs that",
    ),
    (
        SEARCH,
        "budget: {hours: 22:00}\n" + SEARCH,
        '11: 22:00 without quotes is a number to many YAML readers; write "22:00"',
    ),
    ("method: ", "\tmethod: ", "2: this is not valid YAML: "),
    ("{low: 0, high: 1}", "{low: 1, high: 0}", "5: recipe.models[0].weight: low (1) must be below high (0); swap them"),
    ("{low: 0, high: 1}", "{low: 0}", "5: recipe.models[0].weight: a hole needs low and high, or choices"),
    ("high: 1}", "high: 1, log: true}", "5: recipe.models[0].weight: a log range must lie above zero, and low is 0"),
    ("trials: 3", 'trials: "3"', "11: search.trials: input should be a valid integer, and it is '3'"),
    ("trials: 3", "trials: 0", "11: search.trials: input should be greater than or equal to 1, and it is 0"),
    ("{low: 0, high: 1}", "{low: 0, high: .inf}", "5: .inf is not a number that can be used here"),
    ("  method: task_arithmetic\n", "", "1: recipe: 'method' is missing; add it"),
    ("{low: 0, high: 1}", "1", "1: recipe: it has no holes, so there is nothing to search; write a range such as"),
    (MODELS, "  per: [attn]\n" + MODELS, "4: recipe.per: unknown group 'attn'; known are attention"),
    (
        "task_arithmetic",
        "task_arithmetics",
        "2: recipe.method: there is no merge method 'task_arithmetics'; did you mean 'task_ar",
    ),
    ("random", "randm", "11: search.strategy: there is no search strategy 'randm'; did you mean 'random'?"),
    ("score: exact", "score: exat", "8: tasks[0].score: there is no scorer named 'exat'; did you mean 'exact'?"),
    ("score: exact", 'score: {python: "nope:score"}', "8: tasks[0]: task 'sums': nope:score cannot be imported"),
    ("name: words", "name: sums", "9: tasks[1].name: there are two tasks named 'sums'; rename one"),
    (
        "{{question}}",
        "{{qestion}}",
        "prompt: the template cannot be filled in at items.jsonl:1: 'qestion' is undefined",
    ),
    (
        "{search: 4",
        "{search: 40",
        "task 'sums': items.jsonl has 20 different items, and 48 are needed (search 40, select 4",
    ),
    ("items.jsonl", "nope.jsonl", "8: tasks[0]: task 'sums': nope.jsonl: there is no such file; check the path"),
    ("models/one", "./models/nope", "5: recipe.models[0].model: "),
    ("models/base", "./models/nope", "3: recipe.base: "),
    (
        "models/base",
        "adapters/short",
        "adapters/short is an adapter where a full checkpoint is needed; give the model it was",
    ),
    ("models/one", "models/wide", "; merge only models of one "),
]
"""A part of the job, what is written instead, and what the sentence then says (after the file, mostly)."""


@pytest.mark.parametrize(("old", "new", "says"), WRONG_JOBS)
def test_a_wrong_job_is_refused_with_its_line_and_key(
    old: str, new: str, says: str, place: Path, refused: Refused
) -> None:
    assert old in JOB
    (place / "job.yaml").write_text(JOB.replace(old, new, -1 if new == "1" else 1))
    sentence = refused("run", "job.yaml")
    assert (f"job.yaml:{says}" if says[0].isdigit() else says) in sentence
    assert refused("check", "job.yaml") == sentence


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "job.yaml: the file is empty; see `evomerge init` for a job that runs"),
        (b"# nothing yet\n", "job.yaml: the file is empty"),
        (b"\x7fELF\x02\x01\x00\x00", "job.yaml: this is not a text file (it holds control characters)"),
        (b"\xff\xfe\x00\xd8", "job.yaml: this is not a text file in UTF-8"),
        (b"- recipe\n- tasks\n", "job.yaml:1: "),
        (b"x: 1\n---\ny: 2\n", "job.yaml:2: a second document (---) starts here"),
        (b"x" * (4 * 1024 * 1024 + 1), "job.yaml: the file has 4194305 bytes, and a job is never that long"),
    ],
    ids=["empty", "comments", "binary", "not-utf8", "list", "two-documents", "huge"],
)
def test_a_file_that_is_no_job_is_refused(content: bytes, says: str, place: Path, refused: Refused) -> None:
    (place / "job.yaml").write_bytes(content)
    assert says in refused("run", "job.yaml")


def test_a_job_that_is_not_there_is_refused_by_every_command_that_reads_one(refused: Refused) -> None:
    for words in (("run", "nope.yaml"), ("check", "nope.yaml"), ("eval", "nope.yaml", "models/one")):
        assert refused(*words) == "nope.yaml: there is no such file; check the path"
    assert refused("merge", "nope.yaml", "out") == "nope.yaml: there is no such file; check the path"
    assert refused("run", "models") == "models: this is a folder; name the YAML file in it"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "items.jsonl: there is no item in this file; put one on each line"),
        (b"\n\n", "items.jsonl: there is no item in this file"),
        (b'{"question": "a", "answer"', "items.jsonl:1: this is not JSON"),
        (b'{"question": "a", "answer": 1}\n\x00', "items.jsonl:2: there is a NUL byte here"),
        (b'["a"]\n', "items.jsonl:1: an item is a JSON object of fields"),
        (b'{"question": "a", "question": "b"}\n', "items.jsonl:1: the field 'question' stands twice in this item"),
        (b"[" * 100_000 + b"\n", "items.jsonl:1: this JSON is nested too deeply"),
    ],
    ids=["empty", "blank", "cut-off", "binary", "list", "key-twice", "deep"],
)
def test_items_that_are_none_are_refused(content: bytes, says: str, place: Path, refused: Refused) -> None:
    (place / "items.jsonl").write_bytes(content)
    sentence = refused("run", "job.yaml")
    assert sentence.startswith("job.yaml:8: tasks[0]: task 'sums': ")
    assert says in sentence


def test_recipes_and_splits_that_a_command_cannot_use_are_refused(refused: Refused) -> None:
    assert refused("merge", "job.yaml", "out") == (
        "job.yaml:1: recipe: it has holes; `evomerge run` searches for their values, a merge needs numbers"
    )
    assert "--split half: there is no such split; choose search, select or test" in refused(
        "eval", "job.yaml", "models/one", "--split", "half"
    )
    assert "./nope does not exist" in refused("eval", "job.yaml", "./nope").replace(str(Path.cwd()) + "/", "./")
    assert "there is no merge method 'tise'" in refused("methods", "tise")


def test_a_process_of_its_own_says_the_same(place: Path) -> None:
    """What the other tests see in this process is what a shell sees."""
    (place / "job.yaml").write_text(JOB.replace("trials", "trails"))
    before = everything_in(place)
    done = execute("run", "job.yaml", PYTHONPATH=str(ROOT))
    assert check_refusal(done, CONFIGURATION).startswith("job.yaml:11: search.trails: unknown key 'trails'")
    assert everything_in(place) == before
