"""What programs meet: exit codes, classes of errors, and the names of the package."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import evomerge
from evomerge import errors
from evomerge.cli import studies
from evomerge.cli.main import INTERNAL, USAGE
from generator.markdown import code, first_sentence, one_line, table

UNDESCRIBED = {
    "Recipe": ("`evomerge.recipe.tree`", "A recipe of weights (as `Source`, `Merge`) or of answers (as `Ensemble`)"),
    "__version__": ("`evomerge.version`", "The version"),
}
OTHER_CODES = {
    0: "done",
    USAGE: "the words of the command are wrong",
    studies.MORE_TO_DO: "stopped with more to do: the same command goes on",
    130: "interrupted before there was anything to go on with",
    141: "whoever read the output has gone",
}


def error_sections() -> Iterator[str]:
    """Exit codes, and the classes of errors."""
    rows = [(str(number), meaning) for number, meaning in OTHER_CODES.items()]
    rows += [("70, 73, 75, 78", "an error of the table below")]
    yield (
        "## Exit codes\n\n" + table(("code", "meaning"), rows) + "\n\nAn error that is not one of these is a fault of "
        f"evomerge: it ends with {INTERNAL} and a sentence, and with `EVOMERGE_DEBUG=1` it shows where."
    )
    found = [
        item
        for item in vars(errors).values()
        if inspect.isclass(item) and issubclass(item, errors.EvomergeError) and item.__module__ == errors.__name__
    ]
    listed = [
        (code(item.__name__), code(item.__bases__[0].__name__), str(item.exit_code), one_line(item.__doc__))
        for item in found
    ]
    yield (
        "## Errors\n\nWhat evomerge raises on purpose. The command line prints the sentence and ends with the code; a "
        "program catches the class.\n\n" + table(("class", "is a", "code", "meaning"), listed)
    )


def python_section() -> str:
    """The public names."""
    rows: list[tuple[str, str, str]] = []
    for name in evomerge.__all__:
        value = getattr(evomerge, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            rows.append((code(name), code(value.__module__), first_sentence(value.__doc__)))
        else:
            rows.append((code(name), *UNDESCRIBED[name]))
    return (
        "## Python\n\n`import evomerge` offers these names, each loaded when it is first used. How to use them stands "
        "in the [guide](guide.md); arguments and errors in the docstrings (`help(evomerge.search)`).\n\n"
        + table(("name", "room", "what it is"), rows)
    )
