"""The public surface: what `import evomerge` offers, that it is there, and that looking costs nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import evomerge


def in_a_new_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_public_names_are_those_of_the_reference() -> None:
    """Who takes a name away breaks people's programs, and says so there and in CHANGELOG.md."""
    page = (Path(__file__).parents[1] / "docs" / "reference.md").read_text(encoding="utf-8")
    table = page.partition("\n## Python\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == evomerge.__all__ == sorted(evomerge.__all__)


@pytest.mark.parametrize("name", evomerge.__all__)
def test_every_public_name_can_be_had_and_is_the_same_each_time(name: str) -> None:
    first = getattr(evomerge, name)
    assert first is getattr(evomerge, name)
    assert name in dir(evomerge)


def test_a_star_import_brings_the_public_names_and_nothing_else() -> None:
    brought: dict[str, Any] = {}
    exec("from evomerge import *", brought)  # noqa: S102  # a star import can stand at the top of a module only
    assert set(brought) - {"__builtins__"} == set(evomerge.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="'evomerge' has no attribute 'Reciep'"):
        _ = evomerge.Reciep  # pyright: ignore[reportAttributeAccessIssue]  # the point of the test


def test_type_checkers_see_each_name_in_the_room_that_it_is_loaded_from() -> None:
    tree = ast.parse(Path(evomerge.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    loaded = {name: f"evomerge.{room}" for name, room in evomerge._ROOM_OF.items()}
    assert seen == loaded
    assert set(loaded) == set(evomerge.__all__)


def test_importing_evomerge_loads_none_of_its_rooms() -> None:
    code = "import evomerge, sys; print(*sorted(name for name in sys.modules if name.startswith('evomerge')))"
    assert in_a_new_process(code).split() == ["evomerge"]


def test_asking_for_a_recipe_name_loads_no_heavy_library() -> None:
    code = (
        "import sys; from evomerge import Hole, Merge, Space; print(*{name.partition('.')[0] for name in sys.modules})"
    )
    assert {"torch", "nevergrad", "transformers"}.isdisjoint(in_a_new_process(code).split())
