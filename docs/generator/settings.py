"""What may stand in a job, from the JSON schemas of its settings: keys, values, scorers and strategies."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from evomerge.recipe.groups import KNOWN_GROUPS
from evomerge.strategies.search.registry import find as find_strategy
from evomerge.strategies.search.registry import strategy_names
from evomerge.study.job import JobSettings
from evomerge.tasks.scorers import known as scorer_names
from evomerge.tasks.scorers.registry import find as find_scorer
from generator.markdown import anchor, code, one_line, table

Schema = Mapping[str, Any]
JOB: Schema = JobSettings.model_json_schema(by_alias=True)
DEFINITIONS: Mapping[str, Schema] = JOB["$defs"]

HEADINGS = {  # what stands in several places, or several things in one
    "EnsembleSettings": "recipe of an ensemble",
    "HoleSettings": "hole",
    "SourceSettings": "source",
    "SplitSizes": "splits",
}
ELSEWHERE = {"JsonValue": "values", "ScorerSettings": "[a scorer](#scorers)"}
SCALARS = ("`true` or `false`", "whole number", "number", "text")


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
        case "array" if "prefixItems" in schema:
            parts = [kind(part, names) for part in schema["prefixItems"]]
            return f"list of {len(parts)}: {', '.join(parts)}"
        case "array":
            return f"list of {kind(schema.get('items', {}), names)}"
        case "object":
            return f"map of names to {kind(values(schema), names) or 'values'}"
        case "integer" | "number" as type_:
            return ("whole number" if type_ == "integer" else "number") + limits(schema)
        case type_:
            return simple.get(type_ or "", "value")


def values(schema: Schema) -> Schema:
    """What the values of a map are, whatever its keys are called or must look like."""
    patterns: Mapping[str, Schema] = schema.get("patternProperties", {})
    found: Schema = schema.get("additionalProperties") or {}
    return next(iter(patterns.values()), found)


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
            elif key == "patternProperties":
                for inner in part.values():
                    yield from references(inner, path)
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
    rows: list[tuple[str, str, str, str]] = []
    for name in strategy_names():
        found = find_strategy(name)
        about = one_line(inspect.getdoc(inspect.getmodule(found.make)))
        settings = ", ".join(code(key) for key in sorted(found.settings)) or "none"
        rows.append((code(name), about, "one" if found.several is None else "one or several", settings))
    headings = ("strategy", "what it does", "objectives", "settings it reads beside the seed")
    return "## Strategies\n\n" + table(headings, rows)
