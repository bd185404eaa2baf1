"""A file that cannot be had is one sentence with its name, whoever asked for it."""

from pathlib import Path

import pytest

from evomerge.errors import ConfigError, SourceError
from evomerge.recipe.files import read_file


def test_the_bytes_come_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff\x00\n")
    assert read_file(tmp_path / "file", "file", wanted="data file") == b"\xff\x00\n"


def test_a_missing_file_is_named_with_what_its_path_counts_from(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as refused:
        read_file(tmp_path / "no", "no", wanted="data file", relative=" (from here)", error=SourceError)
    assert str(refused.value) == "no: there is no such file; check the path (from here)"


def test_a_folder_is_refused_with_what_is_wanted_of_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read_file(tmp_path, "here", wanted="YAML file")
    assert str(refused.value) == "here: this is a folder; name the YAML file in it"


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"^name: the file cannot be read \(Not a directory\); check"):
        read_file(tmp_path / "file" / "inner", "name", wanted="data file")
