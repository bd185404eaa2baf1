"""Values of mergekit's parameters: numbers, gradients over depth, filters, and where they are looked for.

Settings are looked for in several places, the nearest first: those of a model, of its slice, of the whole. The first
filter that is a part of the tensor's name decides, and where none is, the next place is asked. What stands outside the
layers, before or behind them, has the first point of a gradient there.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from evomerge.errors import ConfigError
from evomerge.recipe.mergekit.methods import Parameter
from evomerge.recipe.reading import Document, KeyPath
from evomerge.recipe.values import ByPattern, Gradient, Scalar, Value

Part = Scalar | Gradient
_ANY = "*"
_LAYERS = ("layers.", "layer.", ".h.", "blocks.", "block.")
_SPECIAL = re.compile(r"([*?[])")
_NUMBERED = re.compile(r"(?:^|\.)\d+(?:\.|$)")


@dataclass(frozen=True, slots=True)
class Setting:
    """What a file says about a parameter in one place. Within slices, layers have other numbers than in a filter."""

    written: Any
    path: KeyPath
    sliced: bool


def value_of(settings: Sequence[Setting], parameter: Parameter, document: Document, path: KeyPath) -> Value | None:
    """Return the value of a parameter, None where nothing is said and ours has the same default.

    Raises ConfigError, naming the key, for a value that is no value, or that cannot be expressed.
    """
    entries: list[tuple[str, Part]] = []
    for setting in settings:
        for pattern, written, at in _conditions(setting, document):
            entries += _over_depth(pattern, _part(written, parameter, document, at))
            if pattern == _ANY:
                return entries[0][1] if len(entries) == 1 else ByPattern(tuple(entries))
    default = parameter.default
    if default is None:
        told = "no filter names some of its tensors; add `- value:` without a filter" if entries else "it is missing"
        raise document.error(path, f"{told}, and the method needs it")
    default = parameter.words.get(default, default) if parameter.words else default
    return ByPattern((*entries, (_ANY, default))) if entries else default


def _over_depth(pattern: str, part: Part) -> list[tuple[str, Part]]:
    """Return a value for the tensors of a pattern: a gradient for those in layers, its first point for the others."""
    if not isinstance(part, Gradient) or any(name in pattern for name in _LAYERS):
        return [(pattern, part)]
    within = [f"*{name}{pattern}" for name in _LAYERS]
    if pattern != _ANY:
        within += [f"{pattern}{name}*" for name in _LAYERS]
    first = part.points[0]
    return [*((found, part) for found in within), (pattern, first if isinstance(first, int | float) else part)]


def _conditions(setting: Setting, document: Document) -> Iterator[tuple[str, Any, KeyPath]]:
    """Yield pattern, value and place of what is said; a list without maps is one value, a gradient."""
    written = setting.written
    conditions: list[tuple[Any, KeyPath]] = [(written, setting.path)]
    if isinstance(written, list):
        items = cast(list[Any], written)
        if not any(isinstance(item, dict) for item in items):
            if items:
                yield _ANY, items, setting.path
            return
        conditions = [(item, (*setting.path, index)) for index, item in enumerate(items)]
    for condition, path in conditions:
        if not isinstance(condition, dict):
            yield _ANY, condition, path
            continue
        entry = cast(dict[str, Any], condition)
        for key in entry:
            if key not in ("filter", "value"):
                raise document.error((*path, key), f"unknown key '{key}'; a value has 'value', and perhaps 'filter'")
        if "value" not in entry:
            raise document.error(path, "'value' is missing; add it")
        yield _pattern(entry.get("filter"), setting, document, (*path, "filter")), entry["value"], (*path, "value")


def _pattern(part: Any, setting: Setting, document: Document, path: KeyPath) -> str:
    if part is None or part in ("", _ANY):
        return _ANY
    if not isinstance(part, str):
        raise document.error(path, f"a filter is a part of a tensor's name, and this is {part!r}")
    if setting.sliced and _NUMBERED.search(part):
        raise document.error(
            path, f"the layer in {part!r} has another number within its slice; give that layer a slice of its own"
        )
    return _ANY + _SPECIAL.sub(r"[\1]", part) + _ANY


def _part(written: Any, parameter: Parameter, document: Document, path: KeyPath) -> Part:
    if not isinstance(written, list):
        return _scalar(written, parameter, document, path)
    points = [_scalar(item, parameter, document, path) for item in cast(list[Any], written)]
    if not points:
        raise document.error(path, "the list is empty; write a number")
    if len(set(points)) == 1:
        return points[0]
    numbers = [point for point in points if isinstance(point, int | float) and not isinstance(point, bool)]
    if len(numbers) < len(points):
        raise document.error(path, "only numbers can change over depth here; write one value, or filters")
    return Gradient(tuple(numbers))


def _scalar(written: Any, parameter: Parameter, document: Document, path: KeyPath) -> Scalar:
    if not isinstance(written, float | int | str | bool):
        raise document.error(path, f"must be a number or word, and is {written!r}")
    flag = isinstance(parameter.default, bool)
    if flag and not isinstance(written, bool) and written in (0, 1):
        written = bool(written)
    if flag != isinstance(written, bool) or isinstance(written, str):
        raise document.error(path, f"must be {'true or false' if flag else 'a number'}, and is {written!r}")
    if not parameter.words:
        return written
    if written not in parameter.words:
        raise unexpressed(document, path, written)
    return parameter.words[written]


def unexpressed(document: Document, path: KeyPath, written: Scalar) -> ConfigError:
    """Return the error for a value that no parameter of ours can have."""
    said = str(written).lower() if isinstance(written, bool) else repr(written)
    return document.error(path, f"{said} cannot be expressed here; remove it")
