"""What a search is for: one objective, or several that pull against each other.

Every objective has its name, its unit and its sign here and nowhere else. Values are in that unit wherever people see
them (a cost is not negative in journal, report or table); only what a strategy learns is turned so that more is better.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from evomerge.errors import CandidateError
from evomerge.recipe.settings import Settings
from evomerge.study.fitness import Cost, Evaluated, Fitness

Values = Mapping[str, float]
"""Objective -> value, in the objective's own unit."""


@dataclass(frozen=True, slots=True)
class Objective:
    """One thing that is wanted: more of it (`maximize`) or less. `unit` follows its numbers; `digits` are shown.


    `cost` returns what one item contributes, None where it is unknown; there is none for the mean score.
    """

    name: str
    maximize: bool
    unit: str
    digits: int
    cost: Callable[[Cost], float | None] | None = None

    @property
    def heading(self) -> str:
        """The name with its unit, as a table or picture has it."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def gain(self, value: float) -> float:
        """Return a value turned so that more is better."""
        return value if self.maximize else -value

    def words(self, value: float) -> str:
        """Return a value as people read it."""
        return f"{value:.{self.digits}f}" + (f" {self.unit}" if self.unit else "")


def _usd_of_a_thousand(cost: Cost) -> float | None:
    return None if cost.usd is None else 1000 * cost.usd


MEAN = Objective("mean", True, "", 3)
COST = Objective("cost", False, "USD per 1,000 questions", 4, _usd_of_a_thousand)
LATENCY = Objective("latency", False, "seconds a question", 3, lambda cost: cost.seconds)
OBJECTIVES = {objective.name: objective for objective in (MEAN, COST, LATENCY)}
"""All objectives by name, in the order in which strategies are told them."""


class ObjectiveSettings(Settings):
    """What is searched for: good answers."""

    maximize: Literal["mean"] = "mean"
    """The mean over tasks (weighted by each task's `weight`) of the mean score over items."""
    coverage: float = Field(default=1.0, gt=0, le=1)
    """Share of items that must have an answer; a trial with fewer has failed."""

    @model_validator(mode="before")
    @classmethod
    def _answers_count(cls, data: Any) -> Any:
        if isinstance(data, dict) and "minimize" in data:
            raise ValueError("answers are to be good as well; write [{maximize: mean}, {minimize: ...}]")
        return cast(Any, data)


class LessSettings(Settings):
    """What is to be small beside the answers being good, in a list of objectives (a Pareto search)."""

    minimize: Literal["cost", "latency"]
    """`cost`: US dollars per 1,000 questions, by the prices of the endpoints. `latency`: seconds a question, as the
    endpoints took them: of members asked side by side the slowest, of members asked one after the other the sum. Both
    are means over items and tasks like the score, and only an ensemble of endpoints has them."""


def _several(listed: list[ObjectiveSettings | LessSettings]) -> list[ObjectiveSettings | LessSettings]:
    names = [_name(one) for one in listed]
    if names.count("mean") != 1:
        raise ValueError("a list of objectives has {maximize: mean} in it, once; it says what good answers are")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"'{twice[0]}' stands here twice; remove one")
    return listed


def _kind(value: object) -> str:
    return "list" if isinstance(value, list) else "one"


def _direction(value: object) -> str:
    return "less" if isinstance(value, LessSettings) or (isinstance(value, dict) and "minimize" in value) else "more"


_Listed = Annotated[
    Annotated[ObjectiveSettings, Tag("more")] | Annotated[LessSettings, Tag("less")], Discriminator(_direction)
]
ObjectivesSettings = Annotated[
    Annotated[ObjectiveSettings, Tag("one")]
    | Annotated[list[_Listed], Field(min_length=1), AfterValidator(_several), Tag("list")],
    Discriminator(_kind),
]
"""One objective, or a list for a Pareto search."""


def _name(one: ObjectiveSettings | LessSettings) -> str:
    return one.maximize if isinstance(one, ObjectiveSettings) else one.minimize


def objectives_of(settings: ObjectivesSettings) -> tuple[Objective, ...]:
    """Return the objectives that a job names, the mean score first."""
    named = {_name(one) for one in settings} if isinstance(settings, list) else {_name(settings)}
    return tuple(objective for name, objective in OBJECTIVES.items() if name in named)


def quality_of(settings: ObjectivesSettings) -> ObjectiveSettings:
    """Return what a job says about good answers."""
    if isinstance(settings, ObjectiveSettings):
        return settings
    return next(one for one in settings if isinstance(one, ObjectiveSettings))


def measure(
    found: Evaluated, scored: Fitness, weights: Mapping[str, float], objectives: Sequence[Objective]
) -> dict[str, float]:
    """Return the value of each objective, over the items that have an answer.

    Tasks have the same weights in all of them. Raises CandidateError where an answered item's cost is not known.
    """
    return {
        objective.name: scored.value if objective.cost is None else _mean_cost(found, weights, objective)
        for objective in objectives
    }


def _mean_cost(found: Evaluated, weights: Mapping[str, float], objective: Objective) -> float:
    means: dict[str, float] = {}
    for task, items in found.scores.items():
        answered = [item for item, score in items.items() if score is not None]
        known = found.costs.get(task, {})
        values = [_known(objective, known.get(item), task, item) for item in answered]
        means[task] = math.fsum(values) / len(values)
    total = sum(weights[task] for task in means)
    return math.fsum(weights[task] / total * mean for task, mean in means.items())


def _known(objective: Objective, cost: Cost | None, task: str, item: str) -> float:
    value = None if cost is None or objective.cost is None else objective.cost(cost)
    if value is None:
        raise CandidateError(f"the {objective.name} of item {item} of task {task} is not known")
    return value


def gains(values: Values, objectives: Sequence[Objective]) -> tuple[float, ...]:
    """Return the values in the order of the objectives, turned so that more is better."""
    return tuple(objective.gain(values[objective.name]) for objective in objectives)


def outline(settings: ObjectivesSettings) -> dict[str, object]:
    """Return what makes a search one for these objectives, whatever their order in the job was."""
    quality = quality_of(settings).model_dump(mode="json")
    further = [objective.name for objective in objectives_of(settings) if objective is not MEAN]
    return quality | ({"minimize": further} if further else {})
