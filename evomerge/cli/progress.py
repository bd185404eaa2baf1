"""How a running study shows itself: a bar on a terminal, plain lines elsewhere."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from evomerge.recipe.tree import Recipe
from evomerge.study.fitness import Fitness
from evomerge.study.loop import Trial
from evomerge.study.objectives import MEAN, OBJECTIVES
from evomerge.study.study import StudyObserver
from evomerge.tasks.settings import Split

ROOMY = 100
"""Columns from which on a terminal has room for a long bar."""

PHASES = {
    "baselines": "scoring the baselines",
    "timing": "timing the selection",
    "search": "searching",
    "proxy": "scoring trials exactly that were scored by proxy",
    "selection": "choosing the winner",
    "test": "testing the winner",
    "export": "writing the model",
}


class _Score:
    """Counts what a study does, for whoever shows it."""

    def __init__(self) -> None:
        self.trials = 0
        self.failed = 0
        self.items = 0
        self.best: float | None = None

    def told(self, trial: Trial[Recipe]) -> bool:
        """Count a trial; return whether it is the best so far."""
        self.trials += 1
        if trial.fitness is None:
            self.failed += 1
            return False
        if self.best is not None and trial.fitness.value <= self.best:
            return False
        self.best = trial.fitness.value
        return True


class BarProgress(StudyObserver):
    """A bar that moves with the items, with trials, best so far, items answered and the time left."""

    def __init__(self, console: Console, trials: int) -> None:
        self._trials = trials
        self._score = _Score()
        self._task: TaskID | None = None
        self._searching = False
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24 if console.width >= ROOMY else 8),
            TextColumn("{task.fields[words]}"),
            TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=len("-:--:--"))),
            TextColumn("left"),
            console=console,
            transient=True,
        )

    def __enter__(self) -> "BarProgress":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar and show the cursor again."""
        self._progress.stop()

    def phase(self, name: str, items: int) -> None:
        """Begin a new bar."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._searching = name == "search"
        self._task = self._progress.add_task(PHASES[name], total=items or None, words=self._words())

    def answered(self, items: int) -> None:
        """Move the bar."""
        self._score.items += items
        self._update(items)

    def told(self, trial: Trial[Recipe], *, replayed: bool) -> None:
        """Show the trial's number and the best so far."""
        self._score.told(trial)
        if replayed and trial.fitness is not None:
            self._score.items += trial.fitness.items
            self._update(trial.fitness.items)
        else:
            self._update(0)

    def said(self, words: str) -> None:
        """Show it above the bar."""
        self._progress.console.print(words, style="dim", highlight=False, markup=False)

    def _update(self, items: int) -> None:
        if self._task is not None:
            self._progress.update(self._task, advance=items, words=self._words())

    def _words(self) -> str:
        parts = [f"trial {self._score.trials}/{self._trials}"] if self._searching else []
        parts += [] if self._score.best is None else [f"best {self._score.best:.3f}"]
        return " · ".join([*parts, f"{self._score.items:,} items"])


class LineProgress(StudyObserver):
    """A line for each phase, each new best and each failure; for logs."""

    def __init__(self, trials: int) -> None:
        self._trials = trials
        self._score = _Score()

    def __enter__(self) -> "LineProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lines leave nothing to be cleared away."""

    def phase(self, name: str, items: int) -> None:
        """Say what begins."""
        self._say(PHASES[name] + (f": up to {items:,} items" if items else ""))

    def answered(self, items: int) -> None:
        """Count."""
        self._score.items += items

    def told(self, trial: Trial[Recipe], *, replayed: bool) -> None:
        """Say a new best, a failure, and every tenth of the way."""
        best = self._score.told(trial)
        if replayed:
            return
        if trial.fitness is None:
            self._say(f"{self._which(trial)} failed: {trial.error}")
        elif best or self._score.trials % max(self._trials // 10, 1) == 0:
            self._say(
                f"{self._which(trial)}: {trial.fitness.value:.4f}, {_further(trial)}"
                f"best {self._score.best:.4f}, {self._score.items:,} items"
            )

    def compared(self, name: str, split: Split, scored: Fitness | None) -> None:
        """Say what a baseline or finalist reached."""
        self._say(f"{split}: {name} {'failed' if scored is None else f'{scored.value:.4f}'}")

    def said(self, words: str) -> None:
        """Say it."""
        self._say(words)

    def _which(self, trial: Trial[Recipe]) -> str:
        """Return the how manieth trial it is, and its number from 0, which `evomerge export --trial` takes."""
        return f"trial {self._score.trials}/{self._trials} (number {trial.number})"

    @staticmethod
    def _say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def _further(trial: Trial[Recipe]) -> str:
    """Return what else a trial reached, where a study has several objectives."""
    found = [OBJECTIVES[name].words(value) for name, value in trial.values.items() if name != MEAN.name]
    return "".join(f"{words}, " for words in found)


class Relay:
    """Passes on what a backend says, once there is somebody to hear it."""

    def __init__(self) -> None:
        self.to: StudyObserver = StudyObserver()

    def __call__(self, words: str) -> None:
        """Pass it on."""
        self.to.said(words)


def progress(trials: int) -> BarProgress | LineProgress:
    """Return the progress that fits where the output goes."""
    console = Console(stderr=True)
    return BarProgress(console, trials) if console.is_terminal else LineProgress(trials)
