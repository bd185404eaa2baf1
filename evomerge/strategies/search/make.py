"""From settings to the strategy that they choose, with everything checked that a strategy may take for granted."""

from collections.abc import Sequence

from evomerge.errors import ConfigError
from evomerge.recipe.space import Gene, Vector
from evomerge.strategies.search.protocol import Strategy, StrategySettings
from evomerge.strategies.search.registry import find
from evomerge.strategies.search.settings import SearchSettings


def make_strategy(
    settings: StrategySettings, genes: Sequence[Gene], start: Vector, suggestions: Sequence[Vector] = ()
) -> Strategy:
    """Return the strategy that the settings choose.

    `genes` are those of the space; the search begins at `start`, after `suggestions` (points worth trying first, such
    as the best of an earlier study). Raises ConfigError where there is nothing to search or too much for a grid, and
    ValueError for points outside the unit cube.
    """
    if not genes:
        raise ConfigError(
            "the recipe has no holes, so there is nothing to search; give a value low and high, or merge it as it is"
        )
    for point in (start, *suggestions):
        if len(point) != len(genes):
            raise ValueError(f"there are {len(genes)} genes, and a starting point has {len(point)} numbers")
        if not all(0 <= number <= 1 for number in point):
            raise ValueError("a starting point must lie in the unit cube, with all its numbers between 0 and 1")
    if isinstance(settings, SearchSettings):
        settings = settings.without_budget()
    return find(settings.strategy).make(settings, genes, start, suggestions)
