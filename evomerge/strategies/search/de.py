"""Differential evolution: moves each member of a population along differences of others, and keeps what is no worse.

Slow to begin (its first population of 30 is drawn evenly from the cube) and robust on rugged spaces.
"""

from collections.abc import Sequence
from typing import Any

from evomerge.recipe.space import Gene, Vector
from evomerge.strategies.search.engine import NevergradSearch, box
from evomerge.strategies.search.ledger import opening
from evomerge.strategies.search.protocol import Strategy, StrategySettings
from evomerge.strategies.search.registry import strategy


@strategy("de", settings=("population",))
def make_de(
    settings: StrategySettings, genes: Sequence[Gene], start: Vector, suggestions: Sequence[Vector]
) -> Strategy:
    """Return a differential evolution."""
    from nevergrad.optimization.differentialevolution import DifferentialEvolution

    configured: Any = DifferentialEvolution(popsize=settings.population or "standard")
    optimizer = configured(box(start, settings.seed, sigma=1 / 6, bounded=True))
    return NevergradSearch(optimizer, len(genes), opening(start, suggestions), "worse than all")
