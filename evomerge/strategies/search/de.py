"""Differential evolution: moves each member of a population along differences of others, and keeps what is no worse.

Slow to begin (its first population of 30 is drawn evenly from the cube) and robust on rugged spaces. With several
objectives it moves along differences of points that no other beats, and a new point takes its parent's place the more
likely, the more of its objectives are better.
"""

from collections.abc import Sequence
from typing import Any

from evomerge.recipe.space import Gene, Vector
from evomerge.strategies.search.engine import FAILED_LOSS, Candidate, NevergradSearch, box, foreign
from evomerge.strategies.search.ledger import opening
from evomerge.strategies.search.protocol import Strategy, StrategySettings
from evomerge.strategies.search.registry import strategy

POPULATION = 30


class ParetoDE(NevergradSearch):
    """nevergrad's differential evolution with several objectives.

    nevergrad learns their number from the first loss, so failures wait for the first proposal that does not fail. Once
    its population is full it would choose by random names of its own which member a foreign point replaces, and a
    replay would differ: then a foreign point (the start, a suggestion) that is told so late is not learnt from.
    """

    several = True

    def __init__(self, optimizer: Any, genes: int, first: Sequence[Vector], population: int) -> None:
        super().__init__(optimizer, genes, first, "worse than all")
        self._population = population
        self._foreign = 0
        self._losses: int | None = None

    def _learn(self, number: int, vector: Vector, objectives: tuple[float, ...] | None) -> None:
        candidate: Candidate | None = self._candidates.pop(number, None)
        if candidate is None:
            if self._count - len(self._opening) + self._foreign >= self._population:
                return
            self._foreign += 1
            candidate = foreign(self._optimizer, vector)
        if objectives is not None:
            self._losses = len(objectives)
            self._tell(candidate, [-objective for objective in objectives])
        else:
            self._waiting.append(candidate)
        while self._waiting and self._losses is not None:
            self._tell(self._waiting.pop(0), [FAILED_LOSS] * self._losses)


def _optimizer(settings: StrategySettings, start: Vector) -> Any:
    from nevergrad.optimization.differentialevolution import DifferentialEvolution

    configured: Any = DifferentialEvolution(popsize=settings.population or "standard")
    return configured(box(start, settings.seed, sigma=1 / 6, bounded=True))


def make_pareto_de(
    settings: StrategySettings, genes: Sequence[Gene], start: Vector, suggestions: Sequence[Vector]
) -> Strategy:
    """Return a differential evolution for several objectives."""
    population = settings.population or POPULATION
    return ParetoDE(_optimizer(settings, start), len(genes), opening(start, suggestions), population)


@strategy("de", settings=("population",), several=make_pareto_de)
def make_de(
    settings: StrategySettings, genes: Sequence[Gene], start: Vector, suggestions: Sequence[Vector]
) -> Strategy:
    """Return a differential evolution."""
    return NevergradSearch(_optimizer(settings, start), len(genes), opening(start, suggestions), "worse than all")
