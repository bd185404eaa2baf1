"""The commands, from what the command line itself is made of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from evomerge.cli import cache, models, reference, serve, start, studies
from generator.markdown import code, one_line, table


def command_sections() -> Iterator[str]:
    """A section for every command."""
    app = typer.Typer()
    for family in (start, studies, models, serve, cache, reference):
        family.register(app)
    yield "## Commands\n\nEvery command has `--help`; `evomerge --version` tells the version."
    for command in app.registered_commands:
        callback = cast(Callable[..., Any], command.callback)
        name = command.name or callback.__name__
        parameters = list(command_parameters(callback))
        usage = " ".join(
            ["evomerge", name, *(word for word, *_ in parameters if not word.startswith("-")), "[OPTIONS]"]
        )
        example = (command.epilog or "").removeprefix("Example: ")
        text = f"### evomerge {name}\n\n{one_line(callback.__doc__)}\n\n```text\n{usage}\n```\n\n"
        text += table(("word", "default", "what it is"), [(code(word), *rest) for word, *rest in parameters])
        yield text + (f"\n\nExample: `{example}`" if example else "")


def command_parameters(callback: Callable[..., Any]) -> Iterator[tuple[str, str, str]]:
    """How each argument and option is written, its default, and what it is."""
    hints = get_type_hints(callback, include_extras=True)
    for name, parameter in inspect.signature(callback).parameters.items():
        hint = hints[name]
        info = next((part for part in get_args(hint) if isinstance(part, ArgumentInfo | OptionInfo)), None)
        if get_origin(hint) is not Annotated or info is None:
            raise TypeError(f"{callback.__name__}: the parameter {name} does not say what it is")
        required = parameter.default is inspect.Parameter.empty
        if isinstance(info, ArgumentInfo):
            word = info.metavar or name.upper()
        else:
            declared = (info.default, *(info.param_decls or ()))  # in Annotated, the first one stands for a default
            flags = [part for part in declared if isinstance(part, str) and part.startswith("-")]
            flag = ", ".join(flags or [f"--{name.replace('_', '-')}"])
            takes = "" if parameter.default is False else f" {info.metavar or name.upper()}"
            word = flag + takes
        given = parameter.default
        shown = "*required*" if required else "" if given in (None, False) else code(given)
        yield word, shown, one_line(info.help)
