"""A folder of one's own as the current folder, with models, items and a job that works until it is broken."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.support.commands import write_family


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The family of models, made once; it stays whole."""
    torch.set_num_threads(1)
    return write_family(tmp_path_factory.mktemp("family"))


@pytest.fixture
def place(family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of the family that may be broken."""
    here = tmp_path / "here"
    shutil.copytree(family, here)
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    return here
