"""From settings to the strategy that they choose, with everything checked that a strategy may take for granted."""

from collections.abc import Sequence

from evomerge.errors import ConfigError
from evomerge.recipe.space import Gene, Vector
from evomerge.strategies.search.protocol import Factory, Strategy, StrategySettings
from evomerge.strategies.search.registry import find, learning_from_several
from evomerge.strategies.search.settings import SearchSettings


def make_strategy(
    settings: StrategySettings,
    genes: Sequence[Gene],
    start: Vector,
    suggestions: Sequence[Vector] = (),
    *,
    objectives: int = 1,
) -> Strategy:
    """Return the strategy that the settings choose, for a number of objectives.

    `genes` are those of the space; the search begins at `start`, after `suggestions` (points worth trying first, such
    as the best of an earlier study). Raises ConfigError where there is nothing to search, too much for a grid, or more
    objectives than the strategy learns from, and ValueError for points outside the unit cube.
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
    make = factory_for(settings.strategy, objectives)
    if isinstance(settings, SearchSettings):
        settings = settings.without_budget()
    return make(settings, genes, start, suggestions)


def factory_for(name: str, objectives: int) -> Factory:
    """Return what makes a strategy for a number of objectives. Raises ConfigError where it learns from one alone."""
    found = find(name)
    if objectives == 1:
        return found.make
    if found.several is None:
        raise ConfigError(
            f"strategy '{name}' learns from one number, and there are {objectives} objectives; "
            f"choose one of {', '.join(learning_from_several())}, or name one objective"
        )
    return found.several
