"""Test-based population-size adaptation: an evolution strategy for noise, whose population grows when it stalls.

For many cheap, noisy trials. Its first generation is small (16), because it grows by itself. Its centre is a finalist.
Source: Hellwig and Beyer, PPSN 2016.
"""

from collections.abc import Sequence
from typing import Any

from evomerge.recipe.space import Gene, Vector
from evomerge.strategies.search.engine import NevergradSearch, Optimizer, box
from evomerge.strategies.search.ledger import opening
from evomerge.strategies.search.protocol import Strategy, StrategySettings
from evomerge.strategies.search.registry import strategy

FIRST_POPULATION = 16
"""Where nevergrad begins with four times the number of genes, most budgets end before the second generation."""


class TBPSA(NevergradSearch):
    """TBPSA through nevergrad."""

    def __init__(self, optimizer: Optimizer, start: Vector, first: Sequence[Vector]) -> None:
        super().__init__(optimizer, len(start), first, "as the worst")
        self._start = start

    def _learn(self, number: int, vector: Vector, objectives: tuple[float, ...] | None) -> None:
        # A point's distance from the centre is taken for its step, and one step of zero ends all movement: the
        # steps are averaged in the logarithm. So the start, which is the centre, is not told.
        if number >= len(self._opening) or vector != self._start:
            super()._learn(number, vector, objectives)

    def finalists(self) -> list[Vector]:
        """Return the centre of the distribution, once it has moved."""
        centre = self._vector(self._optimizer.recommend())
        return [] if centre == self._start else [centre]


@strategy("tbpsa", settings=("population",))
def make_tbpsa(
    settings: StrategySettings,
    genes: Sequence[Gene],  # noqa: ARG001  # the start has as many numbers
    start: Vector,
    suggestions: Sequence[Vector],
) -> Strategy:
    """Return a TBPSA."""
    from nevergrad.optimization.optimizerlib import ParametrizedTBPSA

    parents = (settings.population or FIRST_POPULATION) // 4  # a generation is four times as many
    configured: Any = ParametrizedTBPSA(naive=False, initial_popsize=parents)
    optimizer = configured(box(start, settings.seed, sigma=1 / 6, bounded=True))
    return TBPSA(optimizer, start, opening(start, suggestions))
