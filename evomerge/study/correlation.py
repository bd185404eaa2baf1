"""Rank correlation: whether two scores put the same things in the same order. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evomerge.study.fitness import Z95

FEWEST = 5
"""Below this many pairs nothing is said of the error."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation of `pairs` pairs, with its 95 % interval where there is one."""

    value: float
    low: float | None
    high: float | None
    pairs: int

    def __str__(self) -> str:
        span = "" if self.low is None or self.high is None else f", 95 % interval {self.low:.2f} to {self.high:.2f}"
        return f"{self.value:.2f} (Spearman, {self.pairs} pairs{span})"


def spearman(pairs: Sequence[tuple[float, float]]) -> Correlation | None:
    """Return the rank correlation of pairs; None for fewer than three, or where one side is always the same.

    Equal values have the mean of their ranks. The interval is Fisher's, with the variance (1 + r^2 / 2) / (n - 3) of
    Bonett and Wright 2000 (Psychometrika 65, equation 4); a perfect correlation has none.
    """
    if len(pairs) < 3:
        return None
    ours, theirs = _ranks([one for one, _ in pairs]), _ranks([two for _, two in pairs])
    value = _pearson(ours, theirs)
    if value is None:
        return None
    if len(pairs) < FEWEST or abs(value) > 1 - 1e-9:
        return Correlation(value, None, None, len(pairs))
    half = Z95 * math.sqrt((1 + value**2 / 2) / (len(pairs) - 3))
    centre = math.atanh(value)
    return Correlation(value, math.tanh(centre - half), math.tanh(centre + half), len(pairs))


def _ranks(values: Sequence[float]) -> list[float]:
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values)):
        places.setdefault(value, []).append(place)
    return [math.fsum(places[value]) / len(places[value]) for value in values]


def _pearson(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    middle = (len(ours) - 1) / 2
    products = math.fsum((one - middle) * (two - middle) for one, two in zip(ours, theirs, strict=True))
    spread = math.fsum((one - middle) ** 2 for one in ours) * math.fsum((two - middle) ** 2 for two in theirs)
    return products / math.sqrt(spread) if spread else None
