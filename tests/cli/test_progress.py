"""Progress: a bar on a terminal, lines elsewhere; both count the same."""

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from evomerge.cli.progress import PHASES, BarProgress, LineProgress, progress
from evomerge.recipe.tree import Recipe, Source
from evomerge.study.fitness import Fitness
from evomerge.study.loop import Trial


def trial(number: int, value: float | None) -> Trial[Recipe]:
    scored = None if value is None else Fitness(value, 0.1, 1.0, 8, {"sort": value})
    return Trial(number, Source("a"), "0" * 16, (0.5,), scored, "too large" if value is None else None)


def a_search(shown: BarProgress | LineProgress, look: Callable[[], None] = lambda: None) -> None:
    """Two trials from before, then one that is better, one that is worse, and one that fails."""
    with shown:
        shown.phase("search", 40)
        for number, value in enumerate((0.25, 0.125)):
            shown.told(trial(number, value), replayed=True)
        for number, value in enumerate((0.5, 0.375, None), start=2):
            shown.answered(8)
            shown.told(trial(number, value), replayed=False)
        look()


def test_lines_say_new_bests_failures_and_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    a_search(LineProgress(20))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "searching: up to 40 items",
        "trial 3/20 (number 2): 0.5000, best 0.5000, 8 items",
        "trial 4/20 (number 3): 0.3750, best 0.5000, 16 items",
        "trial 5/20 (number 4) failed: too large",
    ]


def test_lines_of_the_comparisons_name_split_and_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with LineProgress(20) as shown:
        shown.phase("selection", 16)
        shown.compared("base", "select", Fitness(0.25, 0.1, 1.0, 8, {"sort": 0.25}))
        shown.compared("odd", "select", None)
        shown.phase("export", 0)
    assert capsys.readouterr().err.splitlines() == [
        "choosing the winner: up to 16 items",
        "select: base 0.2500",
        "select: odd failed",
        "writing the model",
    ]


@pytest.mark.parametrize("width", [80, 200])
def test_the_bar_shows_trials_the_best_items_and_the_time_left_in_one_line(width: int) -> None:
    shown = BarProgress(Console(file=io.StringIO(), width=width, force_terminal=True), 4000)
    picture = Console(file=io.StringIO(), width=width)
    a_search(shown, look=lambda: picture.print(shown._progress.get_renderable()))
    assert isinstance(picture.file, io.StringIO)
    [line] = picture.file.getvalue().splitlines()
    assert "searching" in line
    assert "trial 5/4000 · best 0.500 · 40 items" in line
    assert re.search(r" (-|\d+):(--|\d\d):(--|\d\d) left *$", line)
    assert "━" in line


def test_a_narrow_bar_is_whole_in_every_phase() -> None:
    picture = Console(file=io.StringIO(), width=80)
    with BarProgress(Console(file=io.StringIO(), width=80, force_terminal=True), 400) as shown:
        shown.phase("search", 12_345)
        shown.answered(12_345)
        for number in range(400):
            shown.told(trial(number, -2.5), replayed=False)
        for name in PHASES:
            shown.phase(name, 10)
            picture.print(shown._progress.get_renderable())
    assert isinstance(picture.file, io.StringIO)
    lines = picture.file.getvalue().splitlines()
    assert all(
        "12,345 items -:--:-- left" in line and phrase in line
        for line, phrase in zip(lines, PHASES.values(), strict=True)
    )


def test_each_phase_has_a_bar_of_its_own() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    with BarProgress(console, 3) as shown:
        for name in ("baselines", "search", "selection", "test"):
            shown.phase(name, 10)
            shown.answered(4)
            [task] = shown._progress.tasks
            assert (task.completed, task.total) == (4, 10)


def test_a_bar_without_items_is_never_full() -> None:
    with BarProgress(Console(file=io.StringIO(), width=120, force_terminal=True), 3) as shown:
        shown.phase("export", 0)
        [task] = shown._progress.tasks
        assert (task.total, task.finished) == (None, False)


def test_what_is_no_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(progress(3), LineProgress)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(progress(3), BarProgress)
