"""The bookkeeping that every strategy shares: proposals are counted, and each is answered once.

Optimizers forgive telling twice, telling what was never asked, and telling what is no number; a search must not. A
strategy builds on `Ledger` and says how it proposes a vector and how it learns from one.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from evomerge.recipe.space import Vector
from evomerge.strategies.search.protocol import Proposal, Result


class Ledger(ABC):
    """A strategy without the searching. Its first proposals are the vectors of `opening`, in their order.

    One that can learn from `several` objectives may be told any number of them, the same number every time.
    """

    several: ClassVar[bool] = False

    def __init__(self, opening: Sequence[Vector]) -> None:
        self._opening = tuple(opening)
        self._count = 0
        self._objectives: int | None = None if self.several else 1
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
        told = [self._checked(result) for result in results]
        if len({result.id for result in results}) < len(results):
            raise ValueError("a proposal is told twice in one call")
        counts = {len(objectives) for objectives in told if objectives is not None}
        if len(counts | ({self._objectives} - {None})) > 1:
            raise ValueError(f"results with {sorted(counts)} objectives, where this search has {self._objectives}")
        self._objectives = self._objectives or next(iter(counts), None)
        for result, objectives in zip(results, told, strict=True):
            self._learn(result.id, self._open.pop(result.id), objectives)

    def finalists(self) -> list[Vector]:
        """Return nothing: a strategy without a distribution believes in its trials alone."""
        return []

    @abstractmethod
    def _propose(self, number: int) -> Vector:
        """Return the vector of proposal `number`, which is not one of the opening."""

    @abstractmethod
    def _learn(self, number: int, vector: Vector, objectives: tuple[float, ...] | None) -> None:
        """Learn the objectives of a proposal (higher is better), or with None that it failed."""

    def _checked(self, result: Result) -> tuple[float, ...] | None:
        if result.id not in self._open:
            known = 0 <= result.id < self._count
            raise ValueError(f"proposal {result.id} was {'told before' if known else 'never asked'}")
        if result.status == "failed":
            return None
        if not result.objectives or (not self.several and len(result.objectives) != 1):
            wanted = "numbers" if self.several else "one number"
            raise ValueError(f"proposal {result.id}: this strategy learns from {wanted}, not {result.objectives}")
        objectives = tuple(map(float, result.objectives))
        if not all(map(math.isfinite, objectives)):
            shown = objectives[0] if len(objectives) == 1 else objectives
            raise ValueError(f"proposal {result.id}: the fitness is {shown}, which is no number to learn from")
        return objectives


def opening(start: Vector, suggestions: Sequence[Vector]) -> tuple[Vector, ...]:
    """Return what a search tries first: the suggestions, then the start, each once."""
    return tuple(dict.fromkeys((*suggestions, start)))
