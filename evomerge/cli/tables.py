"""Tables for people: the result of a study, scores of models.

A terminal gets the columns that it is wide enough for; a file or a pipe gets them all, in lines as long as they are.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from evomerge.cli.costs import spent_in_words
from evomerge.study.choose import SINGLES
from evomerge.study.fitness import Interval
from evomerge.study.objectives import MEAN, OBJECTIVES, Objective, Values
from evomerge.study.result import Outcome, Row
from evomerge.study.tradeoff import Tradeoff

UNBOUNDED = 10_000
"""Columns of an output that is no terminal; a table takes what it needs of them."""


def output() -> Console:
    """Return the console for results: as wide as the terminal, and as wide as anything where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=UNBOUNDED)


def print_outcome(outcome: Outcome, console: Console) -> None:
    """Print the final table of a study, with the winner last, and what it means."""
    if outcome.tradeoff is not None:
        console.print(f"{outcome.study}: front on the select split", style="bold", highlight=False, markup=False)
        print_front(_of_tradeoff(outcome.tradeoff), console, bold=outcome.tradeoff.front.index(outcome.tradeoff.knee))
        console.print("Of the front `evomerge export --pick` takes another than the winner.\n", highlight=False)
    console.print(f"{outcome.study}: test scores", style="bold", highlight=False, markup=False)
    print_scores(outcome.rows, outcome.best_single, outcome.winner.name, console)
    console.print(outcome.verdict, soft_wrap=True, highlight=False, markup=False)
    for name, words in spent_in_words(outcome.spent) if outcome.spent is not None else ():
        console.print(f"{name}: {words}", soft_wrap=True, highlight=False, markup=False)
    if outcome.agreement is not None:
        console.print(outcome.agreement.sentence, soft_wrap=True, highlight=False, markup=False)
    for name, reason in outcome.left_out.items():
        console.print(f"Left out: {name}: {reason}", soft_wrap=True, highlight=False, markup=False)


def print_front(points: Sequence[tuple[str, Values]], console: Console, *, bold: int | None = None) -> None:
    """Print recipes and what they reached of each objective; the one at `bold` stands out."""
    objectives = _objectives(points[0][1])
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("recipe", overflow="fold")
    for objective in objectives:
        table.add_column(Text(objective.heading), justify="right")
    for place, (name, values) in enumerate(points):
        cells = [name, *(_shown(values, objective) for objective in objectives)]
        table.add_row(*map(Text, cells), style="bold" if place == bold else None)
    console.print(table)


def _of_tradeoff(found: Tradeoff) -> list[tuple[str, Values]]:
    """Return the points of a front, and the single models beside it."""
    front = [(f"{one.contender.name}{' (knee, winner)' * (one is found.knee)}", one.values) for one in found.front]
    singles = [one for one in found.others if one.contender.kind in SINGLES]
    return front + [(f"{one.contender.name} (alone)", one.values) for one in singles]


def _objectives(values: Values) -> list[Objective]:
    return [objective for name, objective in OBJECTIVES.items() if name in values]


def _shown(values: Values, objective: Objective) -> str:
    return f"{values[objective.name]:.{objective.digits}f}"


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
    further = [objective for objective in _objectives(rows[0].values) if objective is not MEAN] if rows else []
    for objective in further:
        table.add_column(Text(objective.heading), justify="right")
    for task in tasks:
        table.add_column(Text(task), justify="right", no_wrap=True)
    for row in rows:
        cells = [_label(row, winner), f"{row.score.value:.3f}", f"{row.score.low:.3f} to {row.score.high:.3f}"]
        if reference is not None:
            cells.append("-" if row.difference is None else _difference(row.difference))
        cells += [_shown(row.values, objective) if row.values else "-" for objective in further]
        cells += [f"{row.tasks[task]:.3f}" for task in tasks]
        table.add_row(*map(Text, cells), style="bold" if row.name == winner else None)
    return table


def _label(row: Row, winner: str | None) -> str:
    return f"{row.name} (winner)" if row.name == winner else row.name


def _difference(interval: Interval) -> str:
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
