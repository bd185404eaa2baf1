"""Tables for people: the result of a study, scores of models, what a job will cost."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from evomerge.study.fitness import Interval
from evomerge.study.result import Outcome, Row


def print_outcome(outcome: Outcome, console: Console) -> None:
    """Print the final table of a study, with the winner last."""
    table = score_table(outcome.rows, outcome.best_single, outcome.winner.name)
    table.title = f"{outcome.study}: test scores"
    console.print(table)
    console.print(outcome.verdict, soft_wrap=True, highlight=False)


def score_table(rows: Sequence[Row], best_single: str | None, winner: str | None) -> Table:
    """Return a table of scores with 95 % intervals and paired differences to the best single model."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column("score", justify="right")
    table.add_column("95 % interval", justify="right", no_wrap=True)
    if best_single is not None:
        table.add_column(f"difference to {best_single}", justify="right", no_wrap=True)
    tasks = list(rows[0].tasks) if rows else []
    if len(tasks) > 1:
        for task in tasks:
            table.add_column(task, justify="right")
    for row in rows:
        cells = [_label(row, winner), f"{row.score.value:.3f}", f"{row.score.low:.3f} to {row.score.high:.3f}"]
        if best_single is not None:
            cells.append("-" if row.difference is None else _difference(row.difference))
        if len(tasks) > 1:
            cells += [f"{row.tasks[task]:.3f}" for task in tasks]
        table.add_row(*cells, style="bold" if row.name == winner else None)
    return table


def _label(row: Row, winner: str | None) -> str:
    return f"{row.name} (winner)" if row.name == winner else row.name


def _difference(interval: Interval) -> str:
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
