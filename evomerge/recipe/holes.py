"""Holes: ranges written in place of values, and the scale between a hole's values and the unit interval.

A search moves numbers in [0, 1]; a hole knows which value such a number stands for. Floats are rounded (9 significant
digits, and no finer than 1e-12 of the range's magnitude), so that a value written down reads back as the same number
and recipe ids agree between machines.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SIGNIFICANT_DIGITS = 9
Scalar = float | int | str | bool


@dataclass(frozen=True, slots=True)
class Hole:
    """A range (`low` to `high`, both included) or a list of `choices`.

    `log` moves evenly in the logarithm; `int` takes whole numbers only; holes of one `name` are one gene; `when` maps
    the name of another hole to the values for which this one exists; `start` is where a search begins (default: the
    middle of the range, the first choice). Raises ValueError for a range that cannot be.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    int: bool = False
    choices: tuple[Scalar, ...] = ()
    name: str | None = None
    when: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict[str, tuple[Scalar, ...]])
    start: Scalar | None = None

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise ValueError(problem)

    def _problem(self) -> str | None:
        if self.choices:
            if self.low is not None or self.high is not None or self.log or self.int:
                return "a hole has either choices or low and high, not both"
            if len(set(map(repr, self.choices))) != len(self.choices):
                return "the same choice stands twice"
            return (
                None
                if self.start is None or self.start in self.choices
                else f"start {self.start!r} is not among the choices"
            )
        if self.low is None or self.high is None:
            return "a hole needs low and high, or choices"
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return "low and high must be finite numbers"
        if self.low >= self.high:
            order = f"low ({self.low:g}) must be below high ({self.high:g})"
            return f"{order}; swap them, or write the number itself if they are equal"
        if self.log and self.low <= 0:
            return f"a log range must lie above zero, and low is {self.low:g}"
        if self.int and not (float(self.low).is_integer() and float(self.high).is_integer()):
            return "an int range needs whole numbers for low and high"
        if self.start is not None and (isinstance(self.start, str | bool) or not self.low <= self.start <= self.high):
            return f"start {self.start!r} is not between low and high"
        return None

    def value(self, unit: float) -> Scalar:
        """Return the value that `unit` in [0, 1] stands for; numbers outside are taken as the nearest end."""
        unit = min(max(unit, 0.0), 1.0)
        if self.choices:
            return self.choices[min(int(unit * len(self.choices)), len(self.choices) - 1)]
        low, high = self._bounds()
        if self.log:
            number = math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
        else:
            number = low + unit * (high - low)
        if self.int:
            return min(max(math.floor(number), math.ceil(low)), math.floor(high) - 1)
        return rounded(number, magnitude=max(abs(low), abs(high)))

    def unit(self, value: Scalar) -> float:
        """Return a number in [0, 1] that stands for `value`. Raises ValueError for one that the hole cannot take."""
        if self.choices:
            if value not in self.choices:
                raise ValueError(f"{value!r} is not one of {list(self.choices)}")
            return (self.choices.index(value) + 0.5) / len(self.choices)
        if isinstance(value, str | bool):
            raise ValueError(f"{value!r} is not a number")
        low, high = self._bounds()
        number = value + 0.5 if self.int else float(value)
        slack = 1e-8 * max(abs(low), abs(high))
        if not low - slack <= number <= high + slack:
            raise ValueError(f"{value!r} is not between {self.low:g} and {self.high:g}")
        number = min(max(number, low), high)
        unit = (
            (math.log(number) - math.log(low)) / (math.log(high) - math.log(low))
            if self.log
            else (number - low) / (high - low)
        )
        return min(max(unit, 0.0), 1.0)

    @property
    def start_unit(self) -> float:
        """Where a search begins, in [0, 1]."""
        if self.start is not None:
            return self.unit(self.start)
        return self.unit(self.choices[0]) if self.choices else 0.5

    def _bounds(self) -> tuple[float, float]:
        """Return the ends of the scale; a whole number k owns the interval from k to k + 1."""
        if self.low is None or self.high is None:
            raise ValueError("a hole of choices has no bounds")
        return (float(self.low), float(self.high) + 1.0) if self.int else (float(self.low), float(self.high))

    def to_plain(self) -> dict[str, Any]:
        """Return the hole as it is written in a job."""
        plain: dict[str, Any] = (
            {"choices": list(self.choices)} if self.choices else {"low": self.low, "high": self.high}
        )
        plain |= {key: True for key in ("log", "int") if getattr(self, key)}
        if self.name is not None:
            plain["name"] = self.name
        if self.when:
            plain["when"] = {name: list(values) for name, values in self.when.items()}
        if self.start is not None:
            plain["start"] = self.start
        return plain


def rounded(number: float, *, magnitude: float) -> float:
    """Round to 9 significant digits, and to no more decimals than such a range can carry through [0, 1]."""
    if number == 0 or magnitude == 0:
        return 0.0
    decimals = 12 - math.ceil(math.log10(magnitude))
    number = round(number, decimals)
    if number == 0:
        return 0.0
    return round(number, SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(abs(number))))
