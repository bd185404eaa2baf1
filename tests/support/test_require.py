"""`require` hides nothing: absent parts are named in the summary, and fail where they have to be there."""

from pathlib import Path

import pytest

from tests.support.require import NEEDS, VARIABLE, Need, require

HERE = Path(__file__)
FAKES = {"present": Need(lambda: HERE, ""), "absent": Need(lambda: None, "buy one")}


def test_what_is_there_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "present")
    assert require("present", FAKES) == HERE


def test_what_is_absent_skips_with_the_reason_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "present")
    with pytest.raises(pytest.skip.Exception, match="there is no absent here: buy one"):
        require("absent", FAKES)


def test_what_is_absent_fails_where_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "present, absent")
    with pytest.raises(pytest.fail.Exception, match="buy one"):
        require("absent", FAKES)


def test_a_misspelt_requirement_does_not_go_unnoticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "presnt")
    with pytest.raises(KeyError, match="presnt"):
        require("present", FAKES)


def test_the_names_that_ci_requires_are_known() -> None:
    script = (HERE.parents[2] / ".ci" / "run").read_text(encoding="utf-8")
    line = next(line for line in script.splitlines() if line.startswith(f"export {VARIABLE}="))
    assert set(line.partition("=")[2].split(",")) <= set(NEEDS)
