"""Bad input, end to end: one sentence with file, key and fix, the right exit code, and nothing is written or spent."""

import json
import os
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.commands import JOB, Done, call, everything_in, execute, write_family

Refused = Callable[..., str]
CONFIGURATION, LOCKED, INTERNAL = 78, 73, 70
ROOT = str(Path(__file__).parents[2])


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_family(tmp_path_factory.mktemp("family"))


@pytest.fixture
def place(family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a job that works until it is broken."""
    here = tmp_path / "here"
    shutil.copytree(family, here)
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return here


def check_refusal(done: Done, code: int) -> str:
    """Return the one sentence of a refusal."""
    assert done.code == code, done
    assert done.out == ""
    assert done.err.startswith("evomerge: ")
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err
    assert "internal error" not in done.err
    return done.err.removeprefix("evomerge: ").rstrip("\n")


@pytest.fixture
def refused(place: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that has to refuse, and return its sentence; nothing may be written."""

    def run(*words: object, code: int = CONFIGURATION) -> str:
        before = everything_in(place)
        done = call(capsys, *map(str, words))
        assert everything_in(place) == before
        return check_refusal(done, code)

    return run


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


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit_json(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def cut_off(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def garbage_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 40) + b"\x93garbage" * 30)


def no_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"PK\x03")


def empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def another_tensor(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({"model.extra.weight": torch.zeros(2, dtype=torch.bfloat16)}))


def without_a_tensor(folder: Path) -> None:
    def remove(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.norm.weight"]

    edit_tensors(folder, remove)


def another_tokenizer(folder: Path) -> None:
    def swap(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]

    edit_json(folder / "tokenizer.json", swap)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut_off, "model.safetensors was cut off: 1000 bytes of its tensors are missing; copy or download"),
        (garbage_header, "model.safetensors: its header is not readable, so it is no safetensors file"),
        (no_header, "model.safetensors is not a safetensors file, or was cut off in its header"),
        (empty, "model.safetensors is not a safetensors file, or was cut off in its header"),
        (a_pickle, "pytorch_model.bin: only safetensors are read"),
        (without_config, "holds neither config.json nor adapter_config.json; give a folder written by save_pretrained"),
        (broken_config, "config.json is not readable JSON; copy or download it again"),
        (another_tensor, "has the tensor model.extra.weight, which"),
        (without_a_tensor, "has no tensor model.norm.weight, which is in"),
        (another_tokenizer, "tokenizer"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_model_is_refused_with_its_file(
    damage: Callable[[Path], None], says: str, place: Path, refused: Refused
) -> None:
    folder = place / "models" / "two"
    damage(folder)
    for command in ("run", "check"):
        sentence = refused(command, "job.yaml")
        assert str(folder) in sentence
        assert says in sentence
    assert str(folder) in refused("init", "models/one", "models/two", "--data", "items.jsonl", "--out", "new.yaml")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_found_before_anything_is_spent(
    value: float, place: Path, refused: Refused
) -> None:
    folder = place / "models" / "two"

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"][-1, -1] = value

    edit_tensors(folder, spoil)
    (place / "recipe.yaml").write_text("method: linear\nmodels:\n  - {model: models/one}\n  - {model: models/two}\n")
    sentence = (
        f"{folder}/model.safetensors: the tensor model.layers.1.mlp.up_proj.weight holds NaN or infinite values; "
        "copy or download the model again"
    )
    for words in (
        ["run", "job.yaml"],
        ["check", "job.yaml"],
        ["merge", "recipe.yaml", "out"],
        ["eval", "job.yaml", "models/one", "models/two"],
    ):
        assert refused(*words) == sentence


def test_a_disk_too_full_is_noticed_before_anything_is_written(
    place: Path, refused: Refused, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "recipe.yaml").write_text("method: linear\nmodels:\n  - {model: models/one}\n  - {model: models/two}\n")
    assert call(capsys, "run", "job.yaml", "--study", "study").code == 0
    usage = shutil.disk_usage(place)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    for words in (["run", "job.yaml"], ["check", "job.yaml"]):
        sentence = refused(*words)
        assert sentence.startswith("studies/job: the merged model needs 67.2 MB and this disk has 1.0 kB free; ")
    for words in (["merge", "recipe.yaml", "out"], ["export", "study", "out"]):
        sentence = refused(*words)
        assert sentence.startswith(f"{place}/out: the export needs ")
        assert "free some, or choose another disk" in sentence


def test_a_write_that_the_system_refuses_leaves_nothing_behind(place: Path) -> None:
    (place / "recipe.yaml").write_text("method: linear\nmodels:\n  - {model: models/one}\n  - {model: models/two}\n")
    before = everything_in(place)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # less than the model has
    try:
        # without coverage, which would try to write as well
        done = execute("merge", "recipe.yaml", "out", PYTHONPATH=ROOT, COVERAGE_PROCESS_CONFIG="")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert check_refusal(done, CONFIGURATION) == (
        f"{place}/out cannot be written (File too large); choose another folder or disk"
    )
    assert everything_in(place) == before


def test_what_is_there_already_is_never_touched(place: Path, refused: Refused) -> None:
    (place / "recipe.yaml").write_text("method: linear\nmodels:\n  - {model: models/one}\n  - {model: models/two}\n")
    assert refused("merge", "recipe.yaml", "models") == (
        f"{place}/models exists already; choose another folder, or remove it first"
    )
    assert "exists already" in refused("merge", "recipe.yaml", "items.jsonl")
    assert "job.yaml: this file exists" in refused("init", "models/one", "models/two", "--data", "items.jsonl")
    for folder in (".", "models", "items.jsonl"):
        assert refused("run", "job.yaml", "--study", folder) == (
            f"{folder}: this is no study, and it is not empty; name a new folder with --study"
        )
    assert "items.jsonl/study: this folder cannot be made" in refused("run", "job.yaml", "--study", "items.jsonl/study")


def test_a_folder_that_is_no_study_is_refused_by_every_command_that_wants_one(refused: Refused) -> None:
    for folder in ("models", "nope", "job.yaml"):
        for words in (["status", folder], ["clean", folder], ["clean", folder, "--all"], ["export", folder, "out"]):
            assert refused(*words) == (
                f"{folder}: there is no study here (no journal.db); name the folder that `evomerge run` made"
            )


def test_a_journal_that_is_broken_or_of_a_later_version_is_refused(place: Path, refused: Refused) -> None:
    (place / "old").mkdir()
    (place / "old" / "journal.db").write_bytes(b"no database at all, but long enough to look like one" * 100)
    for words in (["status", "old"], ["export", "old", "out"]):
        assert "old/journal.db: the journal cannot be read" in refused(*words, code=INTERNAL)


def test_a_job_that_changed_does_not_go_on_in_the_old_study(
    place: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, "run", "job.yaml").code == 0
    shutil.rmtree(place / "studies" / "job" / "merged")
    for changed, old, new in (
        ("recipe", "high: 1}", "high: 2}"),
        ("search and tasks", "seed: 1", "seed: 2"),
        ("tasks", "max_tokens: 3", "max_tokens: 4"),
        ("order", SEARCH, "order: arrival\n" + SEARCH),
    ):
        (place / "job.yaml").write_text(JOB.replace(old, new))
        assert refused("run", "job.yaml").startswith(
            f"studies/job: {changed} changed since this study was started, so its trials no longer count; "
            "undo the change, or start a new study with --study"
        )


def test_a_study_that_somebody_works_on_is_refused(
    place: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    from evomerge.study.lock import locked

    assert call(capsys, "run", "job.yaml").code == 0
    with locked(place / "studies" / "job"):
        for words in (["run", "job.yaml"], ["clean", "studies/job"], ["clean", "studies/job", "--all"]):
            assert refused(*words, code=LOCKED) == (
                f"studies/job: another process (process {os.getpid()}) works on this study; wait for it or stop it"
            )


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
    done = execute("run", "job.yaml", PYTHONPATH=ROOT)
    assert check_refusal(done, CONFIGURATION).startswith("job.yaml:11: search.trails: unknown key 'trails'")
    assert everything_in(place) == before
