"""Commands that tell what there is: methods, schema."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from evomerge.errors import ConfigError

if TYPE_CHECKING:
    from evomerge.strategies.merge.protocol import Parameter

SCHEMA = Path("configs/schema.json")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog="Example: evomerge methods ties")(methods)
    app.command(epilog="Example: evomerge schema > schema.json")(schema)


def methods(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[METHOD]", help="Show one method or combiner in full.", show_default=False),
    ] = None,
) -> None:
    """List the merge methods and the combiners: what they need, what may be searched, where they come from."""
    from evomerge.cli.tables import output
    from evomerge.strategies.ensemble.registry import combiners
    from evomerge.strategies.merge.registry import get
    from evomerge.strategies.merge.registry import methods as registered

    console = output()
    if name is not None and name in combiners():
        combiner = combiners()[name]
        _show(console, combiner.name, combiner.title, combiner.source, combiner.parameters)
        return
    if name is not None:
        method = get(name)
        _show(console, method.name, method.title, f"{method.source} ({method.evidence})", method.parameters)
        return
    table = Table("method", "what it does", "base", "models", "source", show_edge=False, pad_edge=False)
    for method in registered().values():
        least, most = method.needs.inputs
        models = f"{least} or more" if most is None else str(least) if least == most else f"{least} to {most}"
        table.add_row(method.name, method.title, method.needs.base, models, method.source)
    console.print(table)
    table = Table("combiner", "what it does with answers", "source", show_edge=False, pad_edge=False)
    for combiner in combiners().values():
        table.add_row(combiner.name, combiner.title, combiner.source)
    console.print()
    console.print(table)


def _show(console: Console, name: str, title: str, source: str, parameters: "Sequence[Parameter]") -> None:
    """Print what a method or combiner is, and its parameters."""
    console.print(f"[bold]{name}[/bold]  {title}", highlight=False)
    console.print(f"source: {source}", highlight=False, markup=False, soft_wrap=True)
    table = Table("parameter", "of", "default", "searched", "what it does", show_edge=False, pad_edge=False)
    for p in parameters:
        span = "" if p.low is None else f"{p.low:g} to {p.high:g}" + (" (log)" if p.log else "")
        table.add_row(p.name, p.of, _plain(p.default), span or ", ".join(map(_plain, p.choices)), p.doc)
    console.print(table)


def schema(
    check: Annotated[bool, typer.Option("--check", help=f"Fail unless {SCHEMA} is what this version writes.")] = False,
) -> None:
    """Print the JSON schema of a job, for editors that complete and check YAML."""
    from evomerge.study.job import job_schema

    text = json.dumps(job_schema(), indent=2, ensure_ascii=False) + "\n"
    if not check:
        typer.echo(text, nl=False)
    elif not SCHEMA.is_file() or SCHEMA.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{SCHEMA}: not what this version writes; run `evomerge schema > {SCHEMA}`")
    else:
        typer.echo(f"{SCHEMA} is up to date")


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
