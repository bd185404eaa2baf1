"""Full disks, folders of other things, studies that are in use, changed or broken: refused, and left as they are."""

import os
import resource
import shutil
from pathlib import Path

import pytest

from tests.support.commands import JOB, call, everything_in, execute
from tests.support.refusals import CONFIGURATION, INTERNAL, LOCKED, Refused, check_refusal
from tests.support.study import ROOT


def test_a_disk_too_full_is_noticed_before_anything_is_written(
    place: Path, refused: Refused, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "recipe.yaml").write_text("method: linear\nmodels:\n  - {model: models/one}\n  - {model: models/two}\n")
    assert call(capsys, "run", "job.yaml", "--study", "study").code == 0
    usage = shutil.disk_usage(place)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    for words in (["run", "job.yaml"], ["check", "job.yaml"]):
        sentence = refused(*words)
        assert sentence.startswith("studies/job: the result needs 67.2 MB and this disk has 1.0 kB free; ")
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
        done = execute("merge", "recipe.yaml", "out", PYTHONPATH=str(ROOT), COVERAGE_PROCESS_CONFIG="")
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
        ("order", "selection: ", "order: arrival\nselection: "),
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
