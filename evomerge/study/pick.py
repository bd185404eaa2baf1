"""Picking one recipe of a front by what matters to a person: `knee`, `cheapest:0.80`, `best-below:0.50`.

Pure. What is compared are the values on the select split, which the front was made of; test items never choose.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evomerge.errors import ConfigError
from evomerge.study.front import knee
from evomerge.study.objectives import COST, MEAN, Objective, Values, gains

Rule = Literal["knee", "cheapest", "best-below"]
WORDS = "knee, cheapest:QUALITY (such as cheapest:0.80) or best-below:USD (such as best-below:0.50)"
ROUNDING = 1e-9
"""How much less than a bound is still as good: a mean of 0.8 may be the sum of numbers that are not exact."""


@dataclass(frozen=True, slots=True)
class Pick:
    """A rule for picking. `bound` is the quality that `cheapest` needs, or the cost that `best-below` allows."""

    rule: Rule
    bound: float = 0.0

    def __str__(self) -> str:
        return self.rule if self.rule == "knee" else f"{self.rule}:{self.bound:g}"


def parse_pick(text: str) -> Pick:
    """Return the rule that a person wrote. Raises ConfigError for what is none."""
    rule, _, bound = text.partition(":")
    if text == "knee":
        return Pick("knee")
    if rule not in ("cheapest", "best-below"):
        raise ConfigError(f"--pick {text}: there is no such rule; write {WORDS}")
    try:
        number = float(bound)
    except ValueError:
        number = float("nan")
    if not 0 <= number < float("inf"):
        raise ConfigError(f"--pick {text}: '{bound}' is no number to compare with; write {WORDS}")
    return Pick("cheapest" if rule == "cheapest" else "best-below", number)


def pick(front: Sequence[Values], objectives: Sequence[Objective], wanted: Pick) -> int:
    """Return the index of the point of a front that a rule picks; of equals the better in the other objectives.

    Raises ConfigError where the study had no such objective, or none of the front is good or cheap enough.
    """
    if wanted.rule == "knee":
        return knee([gains(values, objectives) for values in front])
    if COST not in objectives:
        raise ConfigError(f"--pick {wanted}: this study did not search for cost; add {{minimize: cost}} to objective")
    first, second = (COST, MEAN) if wanted.rule == "cheapest" else (MEAN, COST)

    def rank(index: int) -> tuple[float, ...]:
        values = front[index]
        found = (first.gain(values[first.name]), second.gain(values[second.name]))
        return (*found, *gains(values, objectives), -index)

    if wanted.rule == "cheapest":
        allowed = [index for index, values in enumerate(front) if values[MEAN.name] >= wanted.bound - ROUNDING]
        nearest = max(values[MEAN.name] for values in front)
        missed = f"no recipe of the front reaches {wanted.bound:g}; the best reaches {MEAN.words(nearest)}"
    else:
        allowed = [index for index, values in enumerate(front) if values[COST.name] < wanted.bound]
        nearest = min(values[COST.name] for values in front)
        missed = f"no recipe of the front costs less than {wanted.bound:g}; the cheapest costs {COST.words(nearest)}"
    if not allowed:
        raise ConfigError(f"--pick {wanted}: {missed}")
    return max(allowed, key=rank)
