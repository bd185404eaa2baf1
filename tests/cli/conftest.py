"""A folder of one's own with models, items and a job, a study that is finished, and commands run in this process."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from evomerge.cli.main import run
from tests.support.commands import Done, call
from tests.support.place import family, place

__all__ = ["Command", "command", "family", "finished", "place", "study"]

Command = Callable[..., Done]


@pytest.fixture(scope="session")
def finished(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The family's folder with a finished study in studies/job."""
    folder = tmp_path_factory.mktemp("finished") / "here"
    shutil.copytree(family, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
        assert run(["run", "job.yaml"]) == 0
    return folder


@pytest.fixture
def study(finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of the finished study, in the current folder of its job; a journal knows where its job is."""
    monkeypatch.chdir(finished)
    monkeypatch.setenv("XDG_CACHE_HOME", str(finished.parent / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    copy = tmp_path / "study"
    shutil.copytree(finished / "studies" / "job", copy)
    return copy


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return lambda *words: call(capsys, *map(str, words))
