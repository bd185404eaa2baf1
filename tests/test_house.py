"""The house as a whole: what importing it costs, where its doors lead, and that its files stay small enough to read.

The direction of imports is checked by import-linter (`make lint`), docstrings by ruff.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "evomerge"
LINES = 400
HEAVY = (
    "httpx2",
    "huggingface_hub",
    "matplotlib",
    "nevergrad",
    "pandas",
    "peft",
    "scipy",
    "sklearn",
    "tenacity",
    "tokenizers",
    "torch",
    "transformers",
)


def modules_after(statement: str) -> set[str]:
    """The top-level names of `sys.modules` in a fresh interpreter that ran `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_evomerge_loads_no_heavy_library() -> None:
    loaded = modules_after("import evomerge")
    assert "evomerge" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("room", ["recipe", "strategies", "backends", "tasks", "study", "report", "cli"])
def test_a_room_can_be_imported_before_all_others_and_loads_no_heavy_library(room: str) -> None:
    assert modules_after(f"import evomerge.{room}").isdisjoint(HEAVY)


@pytest.mark.parametrize("door", ["strategies", "backends"])
def test_the_doors_at_the_top_lead_into_the_package(door: str) -> None:
    assert (REPOSITORY / door).is_symlink()
    assert (REPOSITORY / door).resolve() == PACKAGE / door


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert {folder for folder in folders if not (folder / "__init__.py").is_file()} == set()


def test_no_module_is_too_long_to_read() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path.relative_to(REPOSITORY)): n for path, n in lengths.items() if n > LINES} == {}
