"""What a test needs beyond the Python environment: a browser, an engine in an environment of its own.

`require("browser")` at the top of a test (or fixture) returns the path of what is needed. Where that is missing the
test is skipped with the reason in pytest's summary; where the variable EVOMERGE_REQUIRE names it (CI does) the test
fails, so that no part goes untested unnoticed. It looks for things on this machine and installs nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

VARIABLE = "EVOMERGE_REQUIRE"
REPOSITORY = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True)
class Need:
    """One thing: how to find it, and what a person does to have it."""

    find: Callable[[], Path | None]
    remedy: str


def find_browser() -> Path | None:
    """The path of a Chromium, or None."""
    return next((Path(path) for name in BROWSERS if (path := shutil.which(name))), None)


def find_vllm() -> Path | None:
    """The Python of the environment with vLLM, or None; an environment of its own, as its torch is another one."""
    python = REPOSITORY / ".venv-vllm" / "bin" / "python"
    return python if python.exists() else None


def find_mergekit() -> Path | None:
    """The Python of the environment with mergekit, or None."""
    python = REPOSITORY / ".venv-mergekit" / "bin" / "python"
    return python if python.exists() else None


def find_lm_eval() -> Path | None:
    """The Python of the environment with lm-evaluation-harness, or None."""
    python = REPOSITORY / ".venv-lm-eval" / "bin" / "python"
    return python if python.exists() else None


NEEDS: Mapping[str, Need] = {
    "browser": Need(find_browser, f"install one of {', '.join(BROWSERS)}"),
    "lm-eval": Need(find_lm_eval, "make .venv-lm-eval/.stamps/lm-eval"),
    "mergekit": Need(find_mergekit, "make .venv-mergekit/.stamps/mergekit"),
    "vllm": Need(find_vllm, "make the environment .venv-vllm"),
}


def require(name: str, needs: Mapping[str, Need] = NEEDS) -> Path:
    """The path of what is needed; skips the running test without it, or fails it if EVOMERGE_REQUIRE names it.

    Raises KeyError if `name`, or one in EVOMERGE_REQUIRE, is not among `needs`: a misspelt name would require nothing.
    """
    wanted = {word.strip() for word in os.environ.get(VARIABLE, "").split(",")} - {""}
    if unknown := sorted((wanted | {name}) - set(needs)):
        raise KeyError(f"{', '.join(unknown)}: not something a test can need; known are {', '.join(sorted(needs))}")
    if path := needs[name].find():
        return path
    reason = f"there is no {name} here: {needs[name].remedy}"
    if name in wanted:
        pytest.fail(f"{reason} ({VARIABLE} names it)", pytrace=False)
    pytest.skip(reason)
