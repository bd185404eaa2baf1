"""What money is said on the command line: the costs of a plan, what a study has spent."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evomerge.backends.api.money import Amount, dollars
from evomerge.backends.api.prices import kept_prices
from evomerge.backends.api.spent import Spent
from evomerge.study.costs import Cost, budget_of, check_budget, total
from evomerge.study.plan import Plan
from evomerge.study.prepare import Prepared


def print_costs(prepared: Prepared, planned: Plan, console: Console) -> None:
    """Print what each endpoint is asked and may cost, and whether the budget covers it.

    Raises ConfigError for one that surely does not.
    """
    if not planned.costs:
        return
    console.print()
    console.print(_table(planned.costs, planned))
    for note in _notes(prepared, planned):
        console.print(f"note: {note}", soft_wrap=True, highlight=False, markup=False)


def _table(found: Sequence[Cost], planned: Plan) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    money = [] if planned.usd is None else ["USD at most"]
    for column in ("endpoint", "requests", "tokens read at most", "tokens written at most", *money):
        table.add_column(column, justify="left" if column == "endpoint" else "right", overflow="fold")
    names = list(dict.fromkeys(one.endpoint for one in found))
    for name in names:
        _row(table, name, [one for one in found if one.endpoint == name], planned)
    if len(names) > 1:
        _row(table, "all", found, planned, style="bold")
    return table


def _row(table: Table, name: str, of: Sequence[Cost], planned: Plan, style: str | None = None) -> None:
    sums = [sum(one.requests for one in of), sum(one.read for one in of), sum(one.written for one in of)]
    priced = [one.usd for one in of if one.usd is not None]
    money = [] if planned.usd is None else [f"{sum(priced):.2f}" if priced else "?"]
    table.add_row(Text(name), *(f"{number:,}" for number in sums), *money, style=style)


def _notes(prepared: Prepared, planned: Plan) -> list[str]:
    notes = ["baselines and trials are arithmetic on the answers of the search items, and ask nothing more"]
    if cached := sum(one.cached for one in planned.costs):
        notes.append(f"{cached:,} more requests are answered in the cache already, and cost nothing")
    without = f"; without {', '.join(planned.unpriced)}, whose prices are not given" if planned.unpriced else ""
    notes.append(
        "at most means a token for every byte of a prompt, and every answer as long as max_tokens allows; a request "
        f"that fails may be asked again{without if planned.usd is not None else ''}"
    )
    if planned.listed:
        notes.append(
            f"the prices of {', '.join(planned.listed)} are list prices of {kept_prices()['date']}; name usd_per_mtok "
            "where yours are others"
        )
    budget = budget_of(prepared)
    unsure = check_budget(prepared, planned.costs, Amount())
    if unsure is not None:
        notes.append(unsure)
    elif budget.usd is not None or budget.tokens is not None:
        most = total(planned.costs)
        parts = [f"budget.usd of {budget.said('usd')} covers {most.said('usd')}"] if budget.usd is not None else []
        parts += [f"budget.tokens of {budget.said('tokens')} covers {most.said('tokens')}"] if budget.tokens else []
        notes.append(f"{' and '.join(parts)}, all of it")
    return notes


def spent_in_words(spent: Spent) -> list[tuple[str, str]]:
    """Return what a study has spent, in lines of a name and words."""
    usd, tokens = spent.left
    limits = [f"{dollars(usd)} of {spent.budget.said('usd')}"] if usd is not None else []
    limits += [f"{tokens:,} of {spent.budget.said('tokens')}"] if tokens is not None else []
    lines = [("spent", f"{dollars(spent.usd)}, {spent.tokens:,} tokens in {spent.attempts:,} requests")]
    if doubtful := spent.unknown.attempts + spent.lost.attempts:
        amount = dollars(spent.unknown.usd + spent.lost.usd)
        lines.append(
            (
                "of which",
                f"{amount} for {doubtful:,} requests without an answer, which may have been billed: "
                f"{spent.unknown.attempts:,} timed out or were cut, {spent.lost.attempts:,} were under way at a kill",
            )
        )
    if spent.under_way.attempts:
        lines.append(("reserved", f"{dollars(spent.under_way.usd)} for {spent.under_way.attempts:,} requests under way"))
    if limits:
        lines.append(("left", " and ".join(limits)))
    return lines
