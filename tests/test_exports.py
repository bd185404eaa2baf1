"""The public surface: what `import evomerge` offers, that it is there, and that looking costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import evomerge

# What people may rely on. Who takes a name away breaks their programs: say so in CHANGELOG.md.
PUBLIC = {
    "recipes": {"ByGroup", "Gradient", "Input", "Merge", "Per", "Recipe", "Source", "recipe_id", "to_plain"},
    "spaces": {"Gene", "Hole", "Layout", "Space"},
    "searches": {"Fitness", "Found", "Trial", "search"},
    "studies": {"Interval", "Job", "Outcome", "Prepared", "Stopped", "Study", "load_job", "load_recipe", "prepare"},
    "models": {"LocalBackend", "WeightStore", "export"},
    "errors": {
        "BackendError",
        "CandidateError",
        "ConfigError",
        "EndpointPaused",
        "EvomergeError",
        "SourceError",
        "StudyBroken",
        "StudyChanged",
        "StudyLocked",
    },
    "the package": {"__version__"},
}  # fmt: skip


def in_a_new_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_public_names_are_these_and_no_others() -> None:
    assert set(evomerge.__all__) == set().union(*PUBLIC.values())
    assert evomerge.__all__ == sorted(evomerge.__all__)


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
