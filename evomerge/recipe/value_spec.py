"""How a value is written in a recipe: a number or word, a hole, points over depth, or a map from groups or patterns.

The models here are the grammar (and so the JSON schema) of values, and turn into the values of the tree.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from evomerge.recipe.holes import Hole, Scalar
from evomerge.recipe.settings import Settings
from evomerge.recipe.values import ByGroup, ByPattern, Gradient, Value, is_pattern

Choice = bool | int | float | str


class HoleSettings(Settings):
    """A range or a list of choices in place of a value: a gene of the search."""

    low: float | None = None
    """Smallest value, included."""
    high: float | None = None
    """Largest value, included."""
    log: bool = False
    """Move evenly in the logarithm of the value; for scales such as 0.01 to 10."""
    int: bool = False
    """Whole numbers only."""
    choices: list[Choice] | None = None
    """The values to choose among, instead of low and high."""
    name: str | None = None
    """Holes of one name are one gene."""
    when: dict[str, Choice | list[Choice]] | None = None
    """The hole exists only when the hole named here has this value, or one of these."""
    start: Choice | None = None
    """Where the search begins; the middle of the range if left out."""

    @model_validator(mode="after")
    def _is_a_range(self) -> "HoleSettings":
        self.hole()
        return self

    def hole(self) -> Hole:
        """Return the hole. Raises ValueError for a range that cannot be."""
        when = {name: tuple(v) if isinstance(v, list) else (v,) for name, v in (self.when or {}).items()}
        return Hole(
            low=self.low, high=self.high, log=self.log, int=self.int, choices=tuple(self.choices or ()),
            name=self.name, when=when, start=self.start,
        )  # fmt: skip


def _value_kind(value: Any) -> str:
    if isinstance(value, list):
        return "gradient"
    if isinstance(value, dict):
        return "hole" if any(key in value for key in ("low", "high", "choices")) else "map"
    return "scalar"


def _point_kind(value: Any) -> str:
    return "hole" if isinstance(value, Mapping) else "number"


Point = Annotated[Annotated[float, Tag("number")] | Annotated[HoleSettings, Tag("hole")], Discriminator(_point_kind)]
GroupValue = Annotated[
    Annotated[Choice, Tag("scalar")]
    | Annotated[HoleSettings, Tag("hole")]
    | Annotated[list[Point], Field(min_length=1), Tag("gradient")],
    Discriminator(_value_kind),
]
ValueSettings = Annotated[
    Annotated[Choice, Tag("scalar")]
    | Annotated[HoleSettings, Tag("hole")]
    | Annotated[list[Point], Field(min_length=1), Tag("gradient")]
    | Annotated[dict[str, GroupValue], Tag("map")],
    Discriminator(_value_kind),
]
"""A number (or word), a hole, a list of points over depth, or a map to any of these: from groups of tensors, or from
patterns of their names (`"*.mlp.*"`), of which the first that matches counts."""


PlainValue = Annotated[
    Annotated[Choice, Tag("scalar")] | Annotated[HoleSettings, Tag("hole")],
    Discriminator(lambda value: "hole" if isinstance(value, Mapping) else "scalar"),
]
"""A number (or word), or a hole."""


def parsed_params(extra: Mapping[str, Any] | None) -> dict[str, Value]:
    """Return the parameters that stand in the open keys of a merge, model, ensemble or member."""
    return {key: _value(value) for key, value in (extra or {}).items()}


def _value(settings: Scalar | HoleSettings | list[float | HoleSettings] | dict[str, Any]) -> Value:
    match settings:
        case HoleSettings():
            return settings.hole()
        case list():
            return Gradient(tuple(map(number_of, settings)))
        case dict() if settings and all(map(is_pattern, settings)):
            return ByPattern(tuple((pattern, _part_value(value)) for pattern, value in settings.items()))
        case dict():
            return ByGroup({name: _part_value(value) for name, value in settings.items()})
        case _:
            return settings


def number_of(settings: float | HoleSettings) -> float | Hole:
    """Return a number or hole."""
    return settings.hole() if isinstance(settings, HoleSettings) else settings


def _part_value(settings: Any) -> Scalar | Gradient | Hole:
    value = _value(settings)
    if isinstance(value, ByGroup | ByPattern):
        raise TypeError("a group's value is never itself a map of groups")
    return value
