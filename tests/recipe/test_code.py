"""Functions that YAML names as my.module:function."""

from pathlib import Path

import pytest

from evomerge.errors import ConfigError
from evomerge.recipe.code import code_hash, is_code_name, load


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("my.module:score", True), ("m:f", True), ("m", False), ("m:", False), (":f", False), ("a-b:f", False)],
)
def test_a_name_of_code_has_a_module_and_something_in_it(name: str, is_one: bool) -> None:
    assert is_code_name(name) is is_one


def test_modules_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine_of_code.py").write_text(f"def name():\n    return {folder!r}\n")
    found = [load("mine_of_code:name", tmp_path / folder) for folder in ("one", "two")]
    assert [function() for function in found] == ["one", "two"]
    assert len({code_hash(function) for function in found}) == 2


def test_a_module_that_raises_is_named(tmp_path: Path) -> None:
    (tmp_path / "raising_code.py").write_text("raise RuntimeError('no')\n")
    with pytest.raises(ConfigError, match=r"raising_code:f cannot be imported from .*RuntimeError: no"):
        load("raising_code:f", tmp_path)


def test_a_function_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty_code.py").write_text("")
    with pytest.raises(ConfigError, match=r"empty_code:f: there is no function 'f' in .*empty_code.py"):
        load("empty_code:f", tmp_path)
