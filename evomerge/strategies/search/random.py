"""Random search: the start, then points drawn evenly from the unit cube.

The yardstick for every other strategy, and hard to beat with very few trials. It learns nothing from fitness.
"""

from collections.abc import Sequence

from evomerge.recipe.space import Gene, Vector
from evomerge.strategies.search.ledger import Ledger, opening
from evomerge.strategies.search.protocol import Strategy, StrategySettings
from evomerge.strategies.search.registry import strategy


class RandomSearch(Ledger):
    """Independent uniform points; the generator is numpy's PCG64, so they agree between machines."""

    several = True

    def __init__(self, genes: int, seed: int, first: Sequence[Vector]) -> None:
        import numpy as np

        super().__init__(first)
        self._genes = genes
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def _propose(self, number: int) -> Vector:  # noqa: ARG002  # points do not depend on their number
        return tuple(self._generator.random(self._genes).tolist())

    def _learn(self, number: int, vector: Vector, objectives: tuple[float, ...] | None) -> None:
        pass


@strategy("random", several="same")
def make_random(
    settings: StrategySettings, genes: Sequence[Gene], start: Vector, suggestions: Sequence[Vector]
) -> Strategy:
    """Return a random search."""
    return RandomSearch(len(genes), settings.seed, opening(start, suggestions))
