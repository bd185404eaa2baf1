"""The generated pages are what the code says today, and the check would notice if they were not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evomerge.study.job import JobSettings
from tests.docs.markdown import REPOSITORY


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, folder / "generate.py", "--check"], capture_output=True, text=True, check=False
    )


def test_the_committed_pages_are_what_the_generator_writes() -> None:
    done = check(REPOSITORY / "docs")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_page_that_differs_by_a_word_is_named(tmp_path: Path) -> None:
    for name in ("generate.py", "reference.md", "methods.md"):
        shutil.copy(REPOSITORY / "docs" / name, tmp_path / name)
    shutil.copytree(REPOSITORY / "docs" / "generator", tmp_path / "generator")
    page = tmp_path / "methods.md"
    page.write_text(page.read_text(encoding="utf-8").replace("slerp", "lerp", 1), encoding="utf-8")
    done = check(tmp_path)
    assert done.returncode == 1
    assert "methods.md" in done.stderr
    assert "reference.md" not in done.stderr


def keys(schema: Any) -> Iterator[str]:
    """Every key that a schema knows, wherever it stands."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for part in schema.values():
            yield from keys(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from keys(part)


def test_every_key_of_a_job_stands_in_the_reference() -> None:
    text = (REPOSITORY / "docs" / "reference.md").read_text(encoding="utf-8")
    known = set(keys(JobSettings.model_json_schema()))
    assert {"trials", "search_by", "low", "finalists"} <= known
    assert {key for key in known if f"| `{key}` |" not in text} - SCORER_NAMES == set()


SCORER_NAMES = {"choice", "contains", "exact", "f1", "likelihood", "numeric", "python", "regex"}
"""Keys of `score:`, which have headings of their own."""
