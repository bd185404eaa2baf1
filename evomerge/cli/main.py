"""The command line: words in, words out.

Every command is a thin function over the library. Errors that evomerge raises on purpose are printed as their sentence
and end with their exit code; nobody sees a traceback unless EVOMERGE_DEBUG is set.
"""

import gc
import os
import sys
import traceback
from typing import Annotated

import typer
from typer.exceptions import TyperException

from evomerge.errors import EvomergeError
from evomerge.version import __version__

USAGE, INTERNAL = 2, 70

_NEW_OBJECTS = 50_000
"""How many objects are made before garbage is looked for among them."""

app = typer.Typer(
    name="evomerge",
    help="Search, without gradients, for the best way to combine language models that already exist.",
    epilog="Start with: evomerge init --help",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"evomerge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    del version


def _register() -> None:
    """Let every family of commands add itself."""
    from evomerge.cli import cache, models, reference, serve, start, studies

    for family in (start, studies, models, serve, cache, reference):
        family.register(app)


def main() -> None:
    """Run the command line and end the process with the exit code that says how it went.

    Imports make two hundred thousand objects that stay: looking through them for garbage after every few hundred new
    ones would take a good part of a short command's processor time.
    """
    gc.set_threshold(_NEW_OBJECTS)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code: 0 done, 75 stopped with more to do, else as the error says."""
    _register_once()
    try:
        result = app(arguments, prog_name="evomerge", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except typer.Exit as exit_:
        return exit_.exit_code
    except TyperException as error:
        if sentence := _usage(error, arguments):
            _say(sentence)
        return USAGE
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except EvomergeError as error:
        _say(str(error))
        return error.exit_code
    except Exception as error:  # the last resort: a sentence instead of a traceback
        _say(
            f"internal error: {type(error).__name__}: {error}; please report it "
            "with the lines that EVOMERGE_DEBUG=1 shows"
        )
        return INTERNAL


def _register_once() -> None:
    if not app.registered_commands:
        _register()


def _usage(error: TyperException, arguments: list[str]) -> str:
    """Return what was wrong with the words of a command and where to look; nothing where its help was shown instead."""
    message = error.format_message().rstrip(".")
    known = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    command = next((f" {word}" for word in arguments if word in known), "")
    return f"{message} (see `evomerge{command} --help`)" if message else ""


def _say(sentence: str) -> None:
    if os.environ.get("EVOMERGE_DEBUG"):
        traceback.print_exc()
    print(f"evomerge: {sentence}", file=sys.stderr)
