"""Reading YAML that may come from anywhere.

Only maps, lists and plain scalars exist: no tags, anchors, aliases, merge keys or duplicate keys, and no more than 32
levels. Numbers are what they look like (`1e-3` is a number, `no` a string, an unquoted `22:00` an error). Every value
remembers its line, so that a message about a setting can name file, line and key.
"""

import difflib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import yaml
from pydantic import BaseModel, ValidationError

from evomerge.errors import ConfigError
from evomerge.recipe.files import read_file

MAX_DEPTH = 32
MAX_BYTES = 4 * 1024 * 1024
MAX_DIGITS = 300
"""Digits of a whole number; one with more is no floating-point number."""
MAX_SHOWN = 20

Key = str | int
KeyPath = tuple[Key, ...]
M = TypeVar("M", bound=BaseModel)

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?$")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$")
_WORDS: dict[str, Any] = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "Null": None,
    "~": None,
    "": None,
}


@dataclass(frozen=True, slots=True)
class Document:
    """What stood in a YAML file: plain data, and the line of every key."""

    data: Any
    file: str
    lines: dict[KeyPath, int] = field(repr=False)

    def line(self, path: KeyPath) -> int | None:
        """Return the line of a key, or of the nearest key above it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None

    def error(self, path: KeyPath, sentence: str) -> ConfigError:
        """Return an error that names the file, the line and the key."""
        line = self.line(path)
        where = self.file if line is None else f"{self.file}:{line}"
        return ConfigError(f"{where}: {dotted(path)}: {sentence}" if path else f"{where}: {sentence}")

    def parse(self, model: type[M]) -> M:
        """Return the data as a typed model. Raises ConfigError for the first thing that does not fit."""
        try:
            return model.model_validate_json(json.dumps(self.data), strict=True)
        except ValidationError as error:
            raise self._first(error, model) from None

    def _first(self, error: ValidationError, model: type[BaseModel]) -> ConfigError:
        problems = error.errors(include_url=False)
        problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
        path = _real_path(problem["loc"], self.data)
        if problem["type"] == "extra_forbidden":
            return self.error(path, unknown_key(str(path[-1]), _siblings(model, path)))
        if problem["type"] == "missing":
            missing = str(problem["loc"][-1])
            meant = difflib.get_close_matches(missing, map(str, problem["input"]), n=1, cutoff=0.8)
            fix = f"is '{meant[0]}' meant to be it?" if meant else "add it"
            return self.error(path, f"'{missing}' is missing; {fix}")
        message = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        shown = (
            ""
            if isinstance(problem["input"], dict | list) or problem["type"] == "value_error"
            else f", and it is {problem['input']!r}"
        )
        return self.error(path, f"{message[:1].lower()}{message[1:]}{shown}")


def read_yaml(path: Path) -> Document:
    """Read a YAML file. Raises ConfigError for a missing, binary, empty or malformed file, naming file and line."""
    return parse_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Read the text of a YAML file. Raises ConfigError for one that is missing, binary or too long."""
    raw = read_file(path, str(path), wanted="YAML file")
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: the file has {len(raw)} bytes, and a job is never that long; is it the right file?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: this is not a text file in UTF-8; is it the right file?") from None


def parse_yaml(text: str, file: str) -> Document:
    """Read YAML from a string; `file` is the name for messages."""
    if any(ord(c) < 32 and c not in "\t\n\r" for c in text):
        raise ConfigError(f"{file}: this is not a text file (it holds control characters); is it the right file?")
    try:
        document = _Builder(file).build(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}" if mark else file
        raise ConfigError(f"{where}: this is not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: this is not valid YAML: {str(error).splitlines()[0]}") from None
    if document.data is None:
        raise ConfigError(f"{file}: the file is empty; see `evomerge init` for a job that runs")
    return document


class _Builder:
    """Builds plain data from YAML events without recursion, so that no input can exhaust the stack."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[KeyPath, int] = {}
        self.stack: list[tuple[dict[str, Any] | list[Any], KeyPath]] = []
        self.key: list[str | None] = []
        self.root: Any = None
        self.documents = 0

    def build(self, events: Iterable[Any]) -> Document:
        for event in events:
            line = event.start_mark.line + 1 if event.start_mark else 1
            if getattr(event, "anchor", None):
                raise self.error(line, "anchors and aliases (&, *) are not used here; write the value out")
            match event:
                case yaml.DocumentStartEvent():
                    self.documents += 1
                    if self.documents > 1:
                        raise self.error(line, "a second document (---) starts here; use one file for each")
                case yaml.MappingStartEvent():
                    self.open({}, event, line)
                case yaml.SequenceStartEvent():
                    self.open([], event, line)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    self.stack.pop()
                    self.key.pop()
                case yaml.ScalarEvent():
                    self.scalar(event, line)
                case _:
                    pass
        return Document(self.root, self.file, self.lines)

    def error(self, line: int, sentence: str) -> ConfigError:
        return ConfigError(f"{self.file}:{line}: {sentence}")

    def open(self, container: dict[str, Any] | list[Any], event: Any, line: int) -> None:
        if event.tag is not None:
            raise self.error(line, f"tags ({event.tag}) are not used here; remove it")
        if len(self.stack) >= MAX_DEPTH:
            raise self.error(line, f"nested more than {MAX_DEPTH} levels deep; no job needs that")
        path = self.place(container, line)
        self.stack.append((container, path))
        self.key.append(None)

    def place(self, value: Any, line: int) -> KeyPath:
        """Put a value where the next one belongs, and return the path of that place."""
        if not self.stack:
            self.root = value
            self.lines[()] = line
            return ()
        container, path = self.stack[-1]
        if isinstance(container, list):
            here: KeyPath = (*path, len(container))
            container.append(value)
        else:
            key = self.key[-1]
            if key is None:
                raise self.error(line, "a key must be a single word, not a list or map")
            here = (*path, key)
            container[key] = value
            self.key[-1] = None
        self.lines.setdefault(here, line)
        return here

    def scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        if event.tag is not None and event.tag != "!":
            raise self.error(line, f"tags ({event.tag}) are not used here; remove it")
        if self.stack and isinstance(self.stack[-1][0], dict) and self.key[-1] is None:
            container, path = self.stack[-1]
            key = str(event.value)
            if key == "<<" and event.style is None:
                raise self.error(line, "merge keys (<<) are not used here; write the values out")
            if key in container:
                first = self.lines.get((*path, key))
                raise self.error(line, f"the key '{key}' stands here twice (first in line {first}); remove one")
            self.key[-1] = key
            self.lines[(*path, key)] = line
            return
        self.place(self.value(str(event.value), plain=event.style is None, line=line), line)

    def value(self, text: str, *, plain: bool, line: int) -> Any:
        if "\0" in text:
            raise self.error(line, "a text here holds a NUL character; remove it")
        if not plain:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INT.match(text):
            if len(text) > MAX_DIGITS:
                raise self.error(line, f"{text[:MAX_SHOWN]}… is too large for a number")
            return int(text.replace("_", ""))
        if _FLOAT.match(text):
            number = float(text.replace("_", ""))
            if not math.isfinite(number):
                raise self.error(line, f"{text} is too large for a number")
            return number
        if _SEXAGESIMAL.match(text):
            raise self.error(line, f'{text} without quotes is a number to many YAML readers; write "{text}"')
        if text.lower() in {".nan", ".inf", "-.inf", "+.inf"}:
            raise self.error(line, f"{text} is not a number that can be used here")
        return text


def dotted(path: Iterable[Key]) -> str:
    """Write a path the way people do: `recipe.models[0].weight`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Return the sentence for an unknown key, with the nearest known one where there is one."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if near:
        return f"unknown key '{key}'; did you mean '{near[0]}'?"
    return (
        f"unknown key '{key}'; known here: {', '.join(sorted(known))}" if known else f"unknown key '{key}'; remove it"
    )


def _real_path(location: Sequence[Key], data: Any) -> KeyPath:
    """Drop from a validation error's location the names of union members, which are no keys of the data."""
    path: list[Key] = []
    for key in location:
        is_key = isinstance(data, dict) and key in data
        is_index = isinstance(data, list) and isinstance(key, int) and key < len(cast(list[Any], data))
        if is_key or is_index:
            data = cast(Any, data)[key]
            path.append(key)
    return tuple(path)


def _siblings(model: type[BaseModel], path: KeyPath) -> list[str]:
    """Return the keys that are known beside the last one of `path`, as far as the models' fields tell."""
    candidates: list[type[BaseModel]] = [model]
    for key in path[:-1]:
        if isinstance(key, int):
            continue
        found = [inner for candidate in candidates for inner in _models_under(candidate, key)]
        candidates = found or candidates
    return sorted({info.alias or name for candidate in candidates for name, info in candidate.model_fields.items()})


def _models_under(model: type[BaseModel], key: str) -> list[type[BaseModel]]:
    """Return the models that may stand under a key: of its field, or of the open keys where it has none."""
    info = model.model_fields.get(key)
    return _models_in(info.annotation if info is not None else model.__annotations__.get("__pydantic_extra__"))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    parts: tuple[Any, ...] = get_args(annotation)
    return [model for part in parts for model in _models_in(part)]
