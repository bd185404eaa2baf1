"""Commands about the cache of answers: what it holds, and clearing it."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Show what the cache of answers holds: its size, and entries by endpoint with their age.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

CacheFile = Annotated[
    Path | None,
    typer.Option(
        "--path", metavar="FILE", help="The cache; by default where jobs have it that do not name one.",
        show_default=False,
    ),
]  # fmt: skip


def register(family: typer.Typer) -> None:
    """Add these commands."""
    app.callback(invoke_without_command=True, epilog="Example: evomerge cache")(cache)
    app.command(epilog="Example: evomerge cache clear --older-than 30")(clear)
    family.add_typer(app, name="cache", epilog="Example: evomerge cache clear --older-than 30")


def cache(context: typer.Context, path: CacheFile = None) -> None:
    """Show what the cache of answers holds: its size, and entries by endpoint with their age."""
    from evomerge.backends.api.cache import default_place
    from evomerge.backends.api.held import contents
    from evomerge.cli.tables import output
    from evomerge.study.plan import in_words

    if context.invoked_subcommand is not None:
        return
    place = path or default_place()
    found = contents(place)
    if found is None:
        typer.echo(f"{place}: there is no cache yet")
        return
    from rich.table import Table
    from rich.text import Text

    entries = sum(one.entries for one in found.endpoints)
    used = f", {found.pinned:,} of them in use" if found.pinned else ""
    typer.echo(f"{place}: {in_words(found.bytes)}, {entries:,} answers{used}")
    if not found.endpoints:
        return
    table = Table(show_edge=False, pad_edge=False)
    for column in ("endpoint", "answers", "size", "oldest", "last used"):
        table.add_column(column, justify="left" if column == "endpoint" else "right")
    for one in found.endpoints:
        named = f"{one.model} at {one.host}"
        table.add_row(Text(named), f"{one.entries:,}", in_words(one.bytes), _days(one.oldest), _days(one.last_used))
    output().print(table)


def clear(
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only of this endpoint: its model, host, or MODEL at HOST.", show_default=False),
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option(metavar="DAYS", min=0, help="Only what was not used for so many days.", show_default=False),
    ] = None,
    path: CacheFile = None,
) -> None:
    """Remove answers from the cache: all, those of one endpoint, those not used for a while."""
    from evomerge.backends.api.cache import default_place
    from evomerge.backends.api.held import clear as cleared

    place = path or default_place()
    number = cleared(place, endpoint, older_than)
    typer.echo(f"removed {number:,} answer{'s' * (number != 1)} from {place}")


def _days(days: float) -> str:
    return f"{days:.0f} d" if days >= 1 else f"{days * 24:.0f} h"
