"""What stands in a recipe where a number is wanted: the number itself, a value over depth, by group or by name, a hole.

Plain frozen data, and how they are written down; which of them a parameter can take is known to the methods.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from evomerge.recipe.holes import Hole

Scalar = float | int | str | bool


@dataclass(frozen=True, slots=True)
class Gradient:
    """A value that changes over depth: piecewise linear through `points`, from the first layer (0) to the last (1)."""

    points: tuple["float | int | Hole", ...]

    def at(self, depth: float) -> float:
        """Return the value at `depth` in [0, 1]."""
        values = [float(point) for point in self.points if not isinstance(point, Hole)]
        if len(values) != len(self.points):
            raise ValueError("a gradient with holes has no values yet")
        position = min(max(depth, 0.0), 1.0) * (len(values) - 1)
        lower = min(int(position), len(values) - 1)
        upper = min(lower + 1, len(values) - 1)
        return values[lower] + (values[upper] - values[lower]) * (position - lower)


@dataclass(frozen=True, slots=True)
class ByGroup:
    """One value for each group of tensors (see `Merge.per`)."""

    values: Mapping[str, "Scalar | Gradient | Hole"]


@dataclass(frozen=True, slots=True)
class ByPattern:
    """One value for each pattern (with `*` and `?`) of tensor names; of several that match, the first counts."""

    values: tuple[tuple[str, "Scalar | Gradient | Hole"], ...]

    def of(self, tensor: str) -> "Scalar | Gradient | Hole | None":
        """Return the value of a tensor, None where no pattern matches its name."""
        return next((value for pattern, value in self.values if fnmatchcase(tensor, pattern)), None)


Value = Scalar | Gradient | ByGroup | ByPattern | Hole
Params = Mapping[str, Value]


def is_pattern(name: str) -> bool:
    """Return whether a key of a map of values is a pattern of tensor names, and not the name of a group."""
    return "*" in name or "?" in name


def value_to_plain(value: Value) -> Any:
    """Return a value as it is written in a job."""
    match value:
        case Hole():
            return value.to_plain()
        case Gradient():
            return [value_to_plain(point) for point in value.points]
        case ByGroup():
            return {name: value_to_plain(item) for name, item in value.values.items()}
        case ByPattern():
            return {pattern: value_to_plain(item) for pattern, item in value.values}
        case _:
            return value


def params_to_plain(params: Params) -> dict[str, Any]:
    """Return parameters as they are written in a job."""
    return {key: value_to_plain(value) for key, value in params.items()}


def params_to_canonical(params: Params) -> dict[str, Any]:
    """Return parameters for hashing: as written, but patterns keep their order where keys are sorted."""
    return {
        key: [[pattern, value_to_plain(item)] for pattern, item in value.values]
        if isinstance(value, ByPattern)
        else value_to_plain(value)
        for key, value in params.items()
    }


def scalars(value: Value) -> "Iterator[Scalar | Hole]":
    """Yield the scalars and holes that a value is made of."""
    match value:
        case Gradient():
            yield from value.points
        case ByGroup():
            for item in value.values.values():
                yield from scalars(item)
        case ByPattern():
            for _, item in value.values:
                yield from scalars(item)
        case _:
            yield value


def is_open(value: Value) -> bool:
    """Return whether a value is a hole, or has one within."""
    return any(isinstance(part, Hole) for part in scalars(value))
