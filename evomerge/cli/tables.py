"""Tables for people: the result of a study, scores of models.

A terminal gets the columns that it is wide enough for; a file or a pipe gets them all, in lines as long as they are.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from evomerge.study.fitness import Interval
from evomerge.study.result import Outcome, Row

UNBOUNDED = 10_000
"""Columns of an output that is no terminal; a table takes what it needs of them."""


def output() -> Console:
    """Return the console for results: as wide as the terminal, and as wide as anything where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=UNBOUNDED)


def print_outcome(outcome: Outcome, console: Console) -> None:
    """Print the final table of a study, with the winner last, and what it means."""
    console.print(f"{outcome.study}: test scores", style="bold", highlight=False, markup=False)
    print_scores(outcome.rows, outcome.best_single, outcome.winner.name, console)
    console.print(outcome.verdict, soft_wrap=True, highlight=False, markup=False)
    for name, reason in outcome.left_out.items():
        console.print(f"Left out: {name}: {reason}", soft_wrap=True, highlight=False, markup=False)


def print_scores(rows: Sequence[Row], reference: str | None, winner: str | None, console: Console) -> None:
    """Print scores with 95 % intervals and paired differences to a reference.

    The score of each task is left out where the terminal is too narrow for it.
    """
    tasks = list(rows[0].tasks) if rows and len(rows[0].tasks) > 1 else []
    table = _table(rows, reference, winner, tasks)
    if tasks and Measurement.get(console, console.options.update_width(UNBOUNDED), table).maximum > console.width:
        console.print(_table(rows, reference, winner, []))
        console.print(f"(the {len(tasks)} tasks one by one: in a wider terminal, or through a pipe)", style="dim")
    else:
        console.print(table)


def _table(rows: Sequence[Row], reference: str | None, winner: str | None, tasks: Sequence[str]) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("model", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    if reference is not None:
        table.add_column(Text(f"difference to {reference}"), justify="right", no_wrap=True)
    for task in tasks:
        table.add_column(Text(task), justify="right", no_wrap=True)
    for row in rows:
        cells = [_label(row, winner), f"{row.score.value:.3f}", f"{row.score.low:.3f} to {row.score.high:.3f}"]
        if reference is not None:
            cells.append("-" if row.difference is None else _difference(row.difference))
        cells += [f"{row.tasks[task]:.3f}" for task in tasks]
        table.add_row(*map(Text, cells), style="bold" if row.name == winner else None)
    return table


def _label(row: Row, winner: str | None) -> str:
    return f"{row.name} (winner)" if row.name == winner else row.name


def _difference(interval: Interval) -> str:
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
