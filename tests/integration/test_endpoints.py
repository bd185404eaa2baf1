"""From addresses to an ensemble, through the command line, against real servers: killed once, all is asked once."""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from evomerge.study.journal import Journal
from tests.support.commands import execute
from tests.support.endpoint import ChatServer
from tests.support.ensemble import adder, write_items
from tests.support.study import finish, log, start

IN_FLIGHT = 8
"""What a drafted job leaves the limit of requests under way at."""


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[list[ChatServer]]:
    """Three models with as many errors, each its own, and a cache of one's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    running = [ChatServer(adder(name, 0.35)) for name in ("red", "green", "blue")]
    yield running
    for server in running:
        server.close()


def drafted(folder: Path, servers: list[ChatServer], items: int) -> Path:
    """Write a job with `init`, and look at it with `check`."""
    write_items(folder, items)
    job = folder / "job.yaml"
    words = [f"{server.url}#{name}" for server, name in zip(servers, ("red", "green", "blue"), strict=True)]
    done = execute("init", *words, "--data", str(folder / "items.jsonl"), "--trials", "30", "--out", str(job))
    assert (done.code, done.err) == (0, "")
    checked = execute("check", str(job), "--study", str(folder / "study"))
    assert (checked.code, checked.err) == (0, "")
    assert f"{3 * items:,} │  100%" in checked.out
    return job


def without_money(shown: str) -> list[str]:
    """Return the lines that do not tell what was spent: what was under way at a kill was."""
    return [line for line in shown.splitlines() if not line.startswith(("spent:", "of which:"))]


def wait_for_answers(study: Path, count: int) -> None:
    """Return when the journal holds so many answers."""
    while True:
        with closing(Journal(study / "journal.db", read_only=True)) as journal:
            if journal.count_asked() >= count:
                return


def test_a_study_of_endpoints_that_is_killed_asks_nothing_twice_and_ends_as_an_undisturbed_one(
    tmp_path: Path, servers: list[ChatServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, study = drafted(tmp_path, servers, items=90), tmp_path / "study"
    assert not any(server.asked for server in servers)
    for server in servers:
        server.hold_after(20)
    process = start(job, study)
    for server in servers:
        server.wait_until_holding()
    wait_for_answers(study, 60)
    answered = [Counter(server.answered) for server in servers]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    for server in servers:
        server.hold_after(None)
    shown = finish(job, study)
    for server, before in zip(servers, answered, strict=True):
        assert len(before) == 20
        assert {server.asked[prompt] for prompt in before} == {1}
        assert len(server.asked) == 90
        assert server.asked.total() <= 90 + IN_FLIGHT
    total = [server.asked.total() for server in servers]
    assert finish(job, study) == shown
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another cache"))
    undisturbed = finish(job, tmp_path / "undisturbed")
    assert log(tmp_path / "undisturbed") == log(study)
    assert without_money(undisturbed.replace("undisturbed", "study")) == without_money(shown)
    assert [server.asked.total() - before for server, before in zip(servers, total, strict=True)] == [90, 90, 90]


def test_the_vote_of_models_with_errors_of_their_own_beats_the_best_of_them(
    tmp_path: Path, servers: list[ChatServer]
) -> None:
    job, study = drafted(tmp_path, servers, items=500), tmp_path / "study"
    shown = finish(job, study)
    assert "The winner beats the best single model" in shown
    assert f"Ensemble:      {study / 'merged'}" in shown
    moved = tmp_path / "elsewhere"
    shutil.copytree(study / "merged", moved)
    evaluated = execute("eval", str(job), str(moved))
    assert (evaluated.code, evaluated.err) == (0, "")
    winner = next(line for line in shown.splitlines() if "(winner)" in line)
    assert evaluated.out.splitlines()[-1].split("│")[1] == winner.split("│")[1]
