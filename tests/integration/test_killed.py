"""A study cannot be lost: killed at any moment and started again, it ends as it would have."""

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.study import Log, finish, log, start, write_job


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Log:
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(write_job(folder), folder / "study")
    return log(folder / "study")


def kill_at_random_moments(job: Path, study: Path, times: int, seed: int) -> int:
    """Start the study, kill it, and start it again; return how often it was killed in the middle of the work."""
    moments = random.Random(seed)
    killed = 0
    for _ in range(times):
        process = start(job, study)
        assert process.stderr is not None
        while (line := process.stderr.readline()) and not line.startswith(("scoring", "searching", "trial")):
            pass
        try:
            process.wait(timeout=moments.uniform(0, 1.5))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
    return killed


def test_a_study_killed_at_random_moments_ends_as_an_undisturbed_one(tmp_path: Path, undisturbed: Log) -> None:
    job, study = write_job(tmp_path), tmp_path / "study"
    assert kill_at_random_moments(job, study, times=3, seed=1) == 3
    finish(job, study)
    assert log(study) == undisturbed


@pytest.mark.soak
def test_a_study_killed_again_and_again_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    finish(write_job(whole, trials=400, items=10), whole / "study")
    job, study = write_job(tmp_path, trials=400, items=10), tmp_path / "study"
    assert kill_at_random_moments(job, study, times=25, seed=2) == 25
    finish(job, study)
    assert log(study) == log(whole / "study")


def test_the_undisturbed_study_is_complete(undisturbed: Log) -> None:
    kinds = [kind for kind, _, _ in undisturbed.events]
    assert kinds.count("ask") == kinds.count("tell") == 60
    decisions = [data for kind, _, data in undisturbed.events if kind == "decision"]
    assert [next(iter(data)) for data in decisions] == ["search_ended", "winner", "finished"]


def test_a_signal_stops_cleanly_and_says_how_to_go_on(tmp_path: Path, undisturbed: Log) -> None:
    job, study = write_job(tmp_path), tmp_path / "study"
    for number in (signal.SIGTERM, signal.SIGINT):
        process = start(job, study)
        assert process.stderr is not None
        while (line := process.stderr.readline()) and not line.startswith("trial"):
            pass
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 75
        assert f"Go on with: evomerge run {job}" in err
        assert "Traceback" not in err
    finish(job, study)
    assert log(study) == undisturbed


def test_a_second_process_is_refused_with_a_sentence_and_exit_code_73(tmp_path: Path) -> None:
    job, study = write_job(tmp_path, trials=1000), tmp_path / "study"
    first = start(job, study)
    assert first.stderr is not None
    while (line := first.stderr.readline()) and not line.startswith("scoring"):
        pass
    second = start(job, study)
    _, err = second.communicate(timeout=60)
    first.kill()
    first.communicate()
    assert second.returncode == 73
    assert f"{study}: another process (process {first.pid}) works on this study; wait for it or stop it" in err
    assert "Traceback" not in err


def test_a_finished_study_is_shown_again_without_asking_anything(tmp_path: Path) -> None:
    job, study = write_job(tmp_path, trials=3), tmp_path / "study"
    shown = finish(job, study)
    before = log(study)
    assert finish(job, study) == shown
    assert log(study) == before
