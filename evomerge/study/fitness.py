"""From scores of items to one fitness, its error, and intervals that can be believed.

Items are grouped in tasks: the fitness is the weighted mean of the tasks' means, and errors are computed within tasks
(stratified). Two recipes are compared item by item on the items both have answered.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Scores = Mapping[str, Mapping[str, float | None]]
"""Task -> item -> score; None where there was no answer."""

Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Cost:
    """What one item of a candidate cost; None where that is unknown.

    `usd` are US dollars for all requests that the reply needed. `seconds` passed until the reply was there: of members
    asked side by side those of the slowest, of members asked one after the other their sum. A reply that was kept costs
    what it did when it was asked for, so that a candidate costs the same whenever it is scored.
    """

    usd: float | None = None
    seconds: float | None = None


Costs = Mapping[str, Mapping[str, Cost]]
"""Task -> item -> what its reply cost; an item that is not there is as one of which nothing is known."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What an evaluator found out about a candidate: what each item was worth, and what it cost as far as known."""

    scores: Scores
    costs: Costs = field(default_factory=dict[str, Mapping[str, Cost]])


@dataclass(frozen=True, slots=True)
class Fitness:
    """A fitness: `value` is maximised, `coverage` is the share of items answered, `tasks` the mean of each task."""

    value: float
    standard_error: float
    coverage: float
    items: int
    tasks: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % confidence interval, over `items` items."""

    value: float
    low: float
    high: float
    items: int

    @property
    def above_zero(self) -> bool:
        """True when the whole interval lies above zero."""
        return self.low > 0


def fitness(scores: Scores, weights: Mapping[str, float]) -> Fitness | None:
    """Return the weighted mean over tasks, or None when a task has no answer at all."""
    asked = sum(len(items) for items in scores.values())
    answered = {task: [s for s in items.values() if s is not None] for task, items in scores.items()}
    if not asked or not all(answered.values()):
        return None
    total = sum(weights[task] for task in answered)
    share = {task: weights[task] / total for task in answered}
    means = {task: math.fsum(values) / len(values) for task, values in answered.items()}
    variance = math.fsum(share[task] ** 2 * _variance(values) / len(values) for task, values in answered.items())
    count = sum(map(len, answered.values()))
    value = math.fsum(share[task] * means[task] for task in answered)
    return Fitness(value, math.sqrt(variance), count / asked, count, means)


def score_interval(scores: Scores, weights: Mapping[str, float], *, bounded: bool = True) -> Interval | None:
    """Return the fitness with its 95 % interval.

    For scores in [0, 1] each task gets two more items at either end (Agresti and Coull, 1998), so that a task answered
    all right is not taken for certain; `bounded=False` (log-probabilities) takes the items as they are.
    """
    answered = {task: [s for s in items.values() if s is not None] for task, items in scores.items()}
    return _interval(answered, weights, (0.0, 0.0, 1.0, 1.0) if bounded else ())


def paired_interval(
    ours: Scores, theirs: Scores, weights: Mapping[str, float], *, bounded: bool = True
) -> Interval | None:
    """Return the mean difference ours - theirs over common items with its 95 % interval.

    For scores in [0, 1] each task gets one more item at -1 and one at +1 (Bonett and Price, 2012).
    """
    differences = {
        task: [
            mine - other
            for item, mine in items.items()
            if mine is not None and (other := theirs.get(task, {}).get(item)) is not None
        ]
        for task, items in ours.items()
    }
    return _interval(differences, weights, (-1.0, 1.0) if bounded else ())


def _interval(
    values: Mapping[str, Sequence[float]], weights: Mapping[str, float], more: Sequence[float]
) -> Interval | None:
    if not values or not all(values.values()):
        return None
    total = sum(weights[task] for task in values)
    share = {task: weights[task] / total for task in values}
    value = math.fsum(share[task] * math.fsum(v) / len(v) for task, v in values.items())
    padded = {task: [*v, *more] for task, v in values.items()}
    centre = math.fsum(share[task] * math.fsum(v) / len(v) for task, v in padded.items())
    half = Z95 * math.sqrt(math.fsum(share[task] ** 2 * _variance(v) / len(v) for task, v in padded.items()))
    ends = (min(more), max(more)) if more else (-math.inf, math.inf)
    low, high = max(min(centre - half, value), ends[0]), min(max(centre + half, value), ends[1])
    return Interval(value, low, high, sum(map(len, values.values())))


def _variance(values: Sequence[float]) -> float:
    """Return the sample variance; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
