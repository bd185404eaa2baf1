"""Particle swarm optimisation: particles with inertia, drawn to their own best point and to the best of all.

Slow to begin (its first swarm of 40 is drawn evenly from the cube).
"""

from collections.abc import Sequence
from typing import Any

from evomerge.recipe.space import Gene, Vector
from evomerge.strategies.search.engine import NevergradSearch, box
from evomerge.strategies.search.ledger import opening
from evomerge.strategies.search.protocol import Strategy, StrategySettings
from evomerge.strategies.search.registry import strategy


@strategy("pso", settings=("population",))
def make_pso(
    settings: StrategySettings, genes: Sequence[Gene], start: Vector, suggestions: Sequence[Vector]
) -> Strategy:
    """Return a particle swarm."""
    from nevergrad.optimization.optimizerlib import ConfPSO

    configured: Any = ConfPSO(transform="identity", popsize=settings.population)
    optimizer = configured(box(start, settings.seed, sigma=1 / 6, bounded=True))
    return NevergradSearch(optimizer, len(genes), opening(start, suggestions), "worse than all")
