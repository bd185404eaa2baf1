"""Grid search: every combination of every choice, whole number and step, once.

The order is shuffled by the seed, so that a grid cut short by a budget is a fair sample of the whole and not a corner
of it. A hole that does not exist (`when`) is not varied. The strategy is done when the grid is exhausted.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

from evomerge.errors import ConfigError
from evomerge.recipe.holes import Scalar
from evomerge.recipe.space import Gene, Vector
from evomerge.strategies.search.ledger import Ledger
from evomerge.strategies.search.protocol import Strategy, StrategySettings
from evomerge.strategies.search.registry import strategy

LARGEST = 100_000
"""Combinations above which a grid is refused: no budget reaches its end."""


class GridSearch(Ledger):
    """All points of the grid in a shuffled order, after the suggestions."""

    several = True

    def __init__(self, points: Sequence[Vector], seed: int, first: Sequence[Vector]) -> None:
        import numpy as np

        super().__init__(first)
        told = set(self._opening)
        order: list[int] = np.random.Generator(np.random.PCG64(seed)).permutation(len(points)).tolist()
        self._points = [points[index] for index in order if points[index] not in told]

    @property
    def done(self) -> bool:
        """Whether every point was proposed."""
        return self._count >= len(self._opening) + len(self._points)

    def _propose(self, number: int) -> Vector:
        return self._points[number - len(self._opening)]

    def _learn(self, number: int, vector: Vector, objectives: tuple[float, ...] | None) -> None:
        pass


def levels(gene: Gene, steps: int) -> tuple[float, ...]:
    """Return the numbers in [0, 1] that a gene takes in a grid: one a choice or whole number, or `steps` even ones."""
    hole = gene.hole
    if hole.choices:
        return tuple(hole.unit(choice) for choice in hole.choices)
    if hole.int and hole.low is not None and hole.high is not None:
        return tuple(hole.unit(number) for number in range(int(hole.low), int(hole.high) + 1))
    return tuple(step / (steps - 1) for step in range(steps))


def grid_points(genes: Sequence[Gene], steps: int) -> list[Vector]:
    """Return the points of the grid, one for every recipe. Raises ConfigError where there are too many."""
    sizes = [_size(gene, steps) for gene in genes]
    if math.prod(sizes) > LARGEST:
        raise ConfigError(
            f"the grid has {math.prod(sizes):,} combinations ({' x '.join(map(str, sizes))}), more than {LARGEST:,}; "
            "lower search.steps, use fewer holes, or choose another search.strategy"
        )
    axes = [levels(gene, steps) for gene in genes]
    present = _Presence(genes)
    return [
        point
        for point in itertools.product(*axes)
        if all(present.of(i, point) or point[i] == axes[i][0] for i in present.conditional)
    ]


def _size(gene: Gene, steps: int) -> int:
    hole = gene.hole
    if hole.int and hole.low is not None and hole.high is not None:
        return int(hole.high) - int(hole.low) + 1
    return len(hole.choices) or steps


class _Presence:
    """Which genes exist at a point, by the conditions of their holes."""

    def __init__(self, genes: Sequence[Gene]) -> None:
        self._genes = genes
        order = {gene.name: index for index, gene in enumerate(genes)}
        self._conditions: list[dict[int, tuple[Scalar, ...]]] = [_conditions(gene, order) for gene in genes]
        self.conditional = [index for index, conditions in enumerate(self._conditions) if conditions]

    def of(self, index: int, point: Vector) -> bool:
        """Return whether the gene exists: its conditions hold, and the genes they name exist."""
        return all(
            self._genes[other].hole.value(point[other]) in wanted and self.of(other, point)
            for other, wanted in self._conditions[index].items()
        )


def _conditions(gene: Gene, order: Mapping[str, int]) -> dict[int, tuple[Scalar, ...]]:
    """Return the genes that `gene` depends on; a hole in a group looks for the condition in its own group first."""
    found: dict[int, tuple[Scalar, ...]] = {}
    for name, wanted in gene.hole.when.items():
        here = f"{name}@{gene.group}"
        found[order[here if here in order else name]] = wanted
    return found


@strategy("grid", settings=("steps",), several="same")
def make_grid(
    settings: StrategySettings,
    genes: Sequence[Gene],
    start: Vector,  # noqa: ARG001  # a grid has no start
    suggestions: Sequence[Vector],
) -> Strategy:
    """Return a grid search."""
    return GridSearch(grid_points(genes, settings.steps), settings.seed, tuple(dict.fromkeys(suggestions)))
