"""The bookkeeping that every strategy shares: proposals are counted, and each is answered once.

Optimizers forgive telling twice, telling what was never asked, and telling what is no number; a search must not. A
strategy builds on `Ledger` and says how it proposes a vector and how it learns from one.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from evomerge.recipe.space import Vector
from evomerge.strategies.search.protocol import Proposal, Result


class Ledger(ABC):
    """A strategy without the searching. Its first proposals are the vectors of `opening`, in their order."""

    def __init__(self, opening: Sequence[Vector]) -> None:
        self._opening = tuple(opening)
        self._count = 0
        self._open: dict[int, Vector] = {}

    @property
    def done(self) -> bool:
        """Whether there is nothing more to propose."""
        return False

    def ask(self, n: int) -> list[Proposal]:
        """Return up to `n` new proposals."""
        if n < 0:
            raise ValueError(f"cannot ask for {n} proposals")
        asked: list[Proposal] = []
        while len(asked) < n and not self.done:
            number = self._count
            self._count += 1
            vector = self._opening[number] if number < len(self._opening) else self._propose(number)
            self._open[number] = vector
            asked.append(Proposal(number, vector))
        return asked

    def tell(self, results: Sequence[Result]) -> None:
        """Learn from results in the order given, or from none where one of them cannot be."""
        fitnesses = [self._fitness(result) for result in results]
        if len({result.id for result in results}) < len(results):
            raise ValueError("a proposal is told twice in one call")
        for result, fitness in zip(results, fitnesses, strict=True):
            self._learn(result.id, self._open.pop(result.id), fitness)

    def finalists(self) -> list[Vector]:
        """Return nothing: a strategy without a distribution believes in its trials alone."""
        return []

    @abstractmethod
    def _propose(self, number: int) -> Vector:
        """Return the vector of proposal `number`, which is not one of the opening."""

    @abstractmethod
    def _learn(self, number: int, vector: Vector, fitness: float | None) -> None:
        """Learn the fitness of a proposal (higher is better), or with None that it failed."""

    def _fitness(self, result: Result) -> float | None:
        if result.id not in self._open:
            known = 0 <= result.id < self._count
            raise ValueError(f"proposal {result.id} was {'told before' if known else 'never asked'}")
        if result.status == "failed":
            return None
        if result.objectives is None or len(result.objectives) != 1:
            raise ValueError(f"proposal {result.id}: this strategy learns from one number, not {result.objectives}")
        fitness = float(result.objectives[0])
        if not math.isfinite(fitness):
            raise ValueError(f"proposal {result.id}: the fitness is {fitness}, which is no number to learn from")
        return fitness


def opening(start: Vector, suggestions: Sequence[Vector]) -> tuple[Vector, ...]:
    """Return what a search tries first: the suggestions, then the start, each once."""
    return tuple(dict.fromkeys((*suggestions, start)))
