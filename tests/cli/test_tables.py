"""Tables: what a terminal of some width shows, and what a pipe gets."""

import io

import pytest
from rich.console import Console

from evomerge.cli.tables import output, print_scores
from evomerge.study.fitness import Interval
from evomerge.study.result import Row

TASKS = {"reverse": 0.5, "sort": 0.25, "shift": 0.125, "add": 0.75}
ROWS = (
    Row("base", "base", Interval(0.25, 0.125, 0.375, 40), TASKS, None),
    Row("[b]odd[/b]", "single", Interval(0.3, 0.2, 0.4, 40), TASKS, Interval(0.05, -0.05, 0.15, 40)),
    Row("trial 6", "searched", Interval(0.5, 0.4, 0.6, 40), TASKS, Interval(0.25, 0.125, 0.375, 40)),
)


def shown(width: int, rows: tuple[Row, ...] = ROWS, reference: str | None = "base") -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_scores(rows, reference, "trial 6", console)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_wide_terminal_shows_each_task() -> None:
    lines = shown(140)
    assert [word for word in lines[0].replace("┃", " ").split() if word in TASKS] == list(TASKS)
    assert [cell.strip() for cell in lines[-1].split("│")] == [
        "trial 6 (winner)", "0.500", "0.400 to 0.600", "+0.250 (+0.125 to +0.375)", "0.500", "0.250", "0.125", "0.750",
    ]  # fmt: skip


def test_a_narrow_terminal_leaves_the_tasks_out_and_cuts_nothing() -> None:
    lines = shown(80)
    assert all(len(line) <= 80 for line in lines)
    assert not any("…" in line or "sort" in line for line in lines)
    assert "+0.250 (+0.125 to +0.375)" in lines[-2]
    assert lines[-1] == "(the 4 tasks one by one: in a wider terminal, or through a pipe)"


@pytest.mark.parametrize("width", [60, 80])
def test_numbers_are_never_cut(width: int) -> None:
    lines = shown(width)
    assert all(len(line) <= width for line in lines)
    assert any("0.400 to 0.600 │ +0.250 (+0.125 to +0.375)" in line for line in lines)


def test_names_are_shown_as_they_are_and_the_reference_has_no_difference() -> None:
    lines = shown(140)
    assert lines[3].startswith("[b]odd[/b] ")
    assert [cell.strip() for cell in lines[2].split("│")][3] == "-"


def test_a_single_task_has_no_column_of_its_own() -> None:
    rows = (Row("base", "base", ROWS[0].score, {"sort": 0.25}, None),)
    lines = shown(140, rows, None)
    assert [cell.strip() for cell in lines[0].split("┃")] == ["model", "score", "95 % interval"]


def test_no_rows_are_an_empty_table() -> None:
    assert len(shown(80, ())) == 2


def test_what_is_no_terminal_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_scores(ROWS, "base", "trial 6", output())
    printed = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in printed] == shown(140)
    assert max(map(len, printed)) < 140
