"""Writes docs/reference.md and docs/methods.md from the code: settings, scorers, strategies, commands, errors, methods.

`make docs` writes them, `python docs/generate.py --check` fails where a committed page is not what the code says.
Nothing is described here that has a description of its own where it is defined.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

import evomerge
from evomerge import errors
from evomerge.cli import models, reference, start, studies
from evomerge.cli.main import INTERNAL, USAGE
from evomerge.recipe.groups import KNOWN_GROUPS
from evomerge.strategies.merge.protocol import Method, Parameter
from evomerge.strategies.merge.registry import methods
from evomerge.strategies.search.registry import find as find_strategy
from evomerge.strategies.search.registry import strategy_names
from evomerge.study.job import JobSettings
from evomerge.tasks.scorers import known as scorer_names
from evomerge.tasks.scorers.registry import find as find_scorer

FOLDER = Path(__file__).resolve().parent
Schema = Mapping[str, Any]
JOB: Schema = JobSettings.model_json_schema(by_alias=True)
DEFINITIONS: Mapping[str, Schema] = JOB["$defs"]

GENERATED = "<!-- Written by docs/generate.py from the code: `make docs` renews it, and a test compares. -->"
HEADINGS = {"HoleSettings": "hole", "SourceSettings": "source", "SplitSizes": "splits"}  # what stands in several places
ELSEWHERE = {"ScorerSettings": "[a scorer](#scorers)"}
SCALARS = ("`true` or `false`", "whole number", "number", "text")
EVIDENCE = {
    "V": "the formula was compared with the authors' or the common code",
    "V3": "the formula was compared with a third party's code only",
    "A": "the formula comes from a text without all details",
    "R": "a detail that the text leaves open is our reconstruction",
    "D": "the formula was derived and checked numerically",
}
UNDESCRIBED = {
    "Recipe": ("`evomerge.recipe.tree`", "A `Source` or a `Merge`"),
    "__version__": ("`evomerge.version`", "The version"),
}
OTHER_CODES = {
    0: "done",
    USAGE: "the words of the command are wrong",
    studies.MORE_TO_DO: "stopped with more to do: the same command goes on",
    130: "interrupted before there was anything to go on with",
    141: "whoever read the output has gone",
}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; what would end a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def one_line(text: str | None) -> str:
    """The text on one line."""
    return " ".join((text or "").split())


def first_sentence(text: str | None) -> str:
    """The first sentence, without its full stop."""
    return one_line(text).partition(". ")[0].rstrip(".")


def code(value: object) -> str:
    """As code."""
    return f"`{value}`"


# ---- settings, from their JSON schemas


def kind(schema: Schema, names: Mapping[str, str]) -> str:
    """What may be written for a setting, in words; null, which only stands for "left out", is left out."""
    if "$ref" in schema:
        return names[schema["$ref"].rpartition("/")[2]]
    if "enum" in schema or "const" in schema:
        return ", ".join(code(value) for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema or "oneOf" in schema:
        parts = [kind(part, names) for part in schema.get("anyOf", schema.get("oneOf", []))]
        if set(SCALARS) <= set(parts):
            parts = ["number, text, `true` or `false`", *(part for part in parts if part not in SCALARS)]
        return " or ".join(dict.fromkeys(part for part in parts if part))
    simple = {"boolean": "`true` or `false`", "string": "text", "null": ""}
    match schema.get("type"):
        case "array":
            return f"list of {kind(schema.get('items', {}), names)}"
        case "object":
            return f"map of names to {kind(schema.get('additionalProperties') or {}, names) or 'values'}"
        case "integer" | "number" as type_:
            return ("whole number" if type_ == "integer" else "number") + limits(schema)
        case type_:
            return simple.get(type_ or "", "value")


def limits(schema: Schema) -> str:
    """The limits of a number in words, after a space; nothing where there are none."""
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return f" {' and '.join(found)}" if found else ""


def default(name: str, schema: Schema, required: Sequence[str]) -> str:
    """What stands for a setting that is left out."""
    if name in required:
        return "*required*"
    value = schema.get("default")
    if value is None or isinstance(value, dict | list):
        return ""
    return code(json.dumps(value, ensure_ascii=False))


def settings_table(schema: Schema, names: Mapping[str, str]) -> str:
    """The table of a group of settings."""
    required = schema.get("required", [])
    rows = [
        (code(key), kind(part, names), default(key, part, required), one_line(part.get("description") or about(part)))
        for key, part in schema["properties"].items()
    ]
    return table(("key", "value", "default", "what it does"), rows)


def about(part: Schema) -> str:
    """What is said of a group of settings where it is defined: pydantic does not repeat it."""
    return DEFINITIONS.get(part.get("$ref", "").rpartition("/")[2], {}).get("description", "")


def references(schema: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every definition that a schema refers to, with the path of the key that it stands under."""
    if isinstance(schema, list):
        for part in cast(list[Any], schema):
            yield from references(part, path)
    elif isinstance(schema, dict):
        node = cast(dict[str, Any], schema)
        if "$ref" in node:
            yield node["$ref"].rpartition("/")[2], path
        for key, part in node.items():
            if key == "properties":
                for name, inner in part.items():
                    yield from references(inner, f"{path}.{name}" if path else name)
            elif key == "items":
                yield from references(part, f"{path}[]")
            elif key in ("anyOf", "oneOf", "additionalProperties", "allOf"):
                yield from references(part, path)


def job_sections() -> Iterator[str]:
    """The job, and a section for each group of settings in it, in the order in which they stand."""
    headings: dict[str, str] = {}

    def visit(node: Schema, path: str) -> None:
        for name, place in references({"properties": node.get("properties", {}), "anyOf": node.get("anyOf", [])}, path):
            if name in headings or name in ELSEWHERE:
                continue
            headings[name] = HEADINGS.get(name, place)
            visit(DEFINITIONS[name], place)

    visit(JOB, "")
    names = ELSEWHERE | {name: f"[{place}](#{anchor(place)})" for name, place in headings.items()}
    yield f"## A job\n\n{one_line(JOB['description'])}\n\n{settings_table(JOB, names)}"
    for name, place in headings.items():
        definition = DEFINITIONS[name]
        shape = next((part for part in definition.get("anyOf", []) if "properties" in part), definition)
        yield f"### {place}\n\n{one_line(definition.get('description'))}\n\n{settings_table(shape, names)}"


def anchor(heading: str) -> str:
    """The anchor that a heading gets on GitHub."""
    kept = "".join(letter for letter in heading.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def values_section() -> str:
    """What may stand for a parameter, and the groups of tensors that are known."""
    return (
        "### Values, holes and groups\n\n"
        "Every further key of `recipe` and of its models is a parameter of the method (see [methods](methods.md)). "
        "Its value is a number or word; a [hole](#hole); a list of numbers or holes, which is a gradient over depth, "
        "piecewise linear from the first layer to the last; or a map from groups of tensors to any of these. "
        "These groups need no definition of their own:\n\n"
        + table(
            ("group", "tensors whose names match"),
            [(code(name), ", ".join(map(code, patterns))) for name, patterns in KNOWN_GROUPS.items()]
            + [("`rest`", "all that no other named group takes")],
        )
        + "\n\nA tensor belongs to the first group of this table that takes it, among those that `per` names; "
        "groups of your own come before them."
    )


def scorer_sections() -> Iterator[str]:
    """A section for every scorer."""
    yield (
        "## Scorers\n\n`score` and `search_by` of a task take the name of a scorer; a map from the name to its "
        "options, as in `{numeric: {tolerance: 0.01}}`; or, where an option is called the main one, its value "
        'alone, as in `{regex: "answer: (.*)"}`.'
    )
    for name in scorer_names():
        found = find_scorer(name)
        schema = found.options.model_json_schema()
        main = f" The main option is `{found.main}`." if found.main else ""
        body = f"\n\n{settings_table(schema, {})}" if schema["properties"] else ""
        yield f"### {name}\n\n{one_line(found.options.__doc__)}{main}{body}"


def strategy_section() -> str:
    """The table of search strategies."""
    rows: list[tuple[str, str, str]] = []
    for name in strategy_names():
        found = find_strategy(name)
        about = one_line(inspect.getdoc(inspect.getmodule(found.make)))
        rows.append((code(name), about, ", ".join(code(key) for key in sorted(found.settings)) or "none"))
    return "## Strategies\n\n" + table(("strategy", "what it does", "settings it reads beside the seed"), rows)


# ---- commands


def command_sections() -> Iterator[str]:
    """A section for every command."""
    app = typer.Typer()
    for family in (start, studies, models, reference):
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


# ---- errors and names


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


def reference_page() -> str:
    """The whole of reference.md."""
    parts = [
        GENERATED,
        "# Reference",
        "Every setting, scorer, strategy, command and error of this version. Merge methods have a page of their own: "
        "[methods](methods.md). How it all fits together stands in the [guide](guide.md).",
        *job_sections(),
        values_section(),
        *scorer_sections(),
        strategy_section(),
        *command_sections(),
        *error_sections(),
        python_section(),
    ]
    return "\n\n".join(parts) + "\n"


# ---- methods


def method_page() -> str:
    """The whole of methods.md."""
    found = methods().values()
    rows = [
        (f"[{item.name}](#{anchor(item.name)})", item.title, item.needs.base, models_in_words(item), on_adapters(item))
        for item in found
    ]
    parts = [
        GENERATED,
        "# Merge methods",
        "What `method:` of a recipe may be. A method sees one tensor at a time, of every model, in float32; the "
        "result is stored in the base's dtype. `base` says whether it uses the model that the others were fine-tuned "
        "from: *counted* means that it is one of the models to be merged where it is there.",
        table(("method", "what it does", "base", "models", "adapters"), rows),
        *map(method_section, found),
    ]
    return "\n\n".join(parts) + "\n"


def models_in_words(method: Method) -> str:
    """How many models a method takes."""
    least, most = method.needs.inputs
    return f"{least} or more" if most is None else str(least) if least == most else f"{least} to {most}"


def on_adapters(method: Method) -> str:
    """What a method makes of adapters."""
    if method.coefficients is not None:
        return "exact: stays an adapter"
    return "becomes a checkpoint, or an adapter with `refactor: {rank: R}`"


def method_section(method: Method) -> str:
    """A section for one method."""
    rows = [
        (
            code(parameter.name),
            "the merge" if parameter.of == "merge" else "each model",
            code(plain(parameter.default)),
            span(parameter),
            one_line(parameter.doc),
        )
        for parameter in method.parameters
    ]
    formula = one_line(method.apply.__doc__).replace(" * ", " · ")
    return (
        f"## {method.name}\n\n{formula}\n\n"
        + table(("parameter", "of", "default", "a good range to search", "what it does"), rows)
        + f"\n\nSource: {method.source}; {EVIDENCE[method.evidence]}."
    )


def span(parameter: Parameter) -> str:
    """The values that a search should try."""
    if parameter.low is None or parameter.high is None:
        return ", ".join(code(plain(choice)) for choice in parameter.choices)
    return f"{parameter.low:g} to {parameter.high:g}" + (", `log: true`" if parameter.log else "")


def plain(value: object) -> str:
    """A value as YAML writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


PAGES: Mapping[str, Callable[[], str]] = {"reference.md": reference_page, "methods.md": method_page}


def main() -> None:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail unless the committed pages are what this writes")
    wanted = parser.parse_args()
    stale: list[str] = []
    for name, page in PAGES.items():
        text, path = page(), FOLDER / name
        if not wanted.check:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        sys.exit(f"docs: {' and '.join(stale)} differ from what the code says; run `make docs`")


if __name__ == "__main__":
    main()
