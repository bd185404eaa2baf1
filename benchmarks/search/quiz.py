"""A noisy benchmark: yes/no items answered by a candidate whose true accuracy is known.

The accuracy falls smoothly with the distance from a hidden best point, and a trial sees it only through a number of
yes/no items drawn anew. So the luckiest trial can be told from the best one, which no real benchmark allows.
"""

from collections.abc import Sequence

import numpy as np

from evomerge.recipe.holes import Hole
from evomerge.recipe.space import Gene, Vector
from evomerge.strategies.search import Result, SearchSettings, Strategy, make_strategy

BEST, CHANCE, WIDTH = 0.9, 0.05, 0.2


class Quiz:
    """One hidden best point among `genes` numbers; `items` yes/no items a trial. All from the seed."""

    def __init__(self, genes: int, items: int, seed: int) -> None:
        self._dice = np.random.default_rng([seed, genes])
        self._best = self._dice.uniform(0.1, 0.9, genes)
        self._items = items

    def accuracy(self, vector: Sequence[float]) -> float:
        """Return the true share of items that a candidate answers rightly."""
        distance = float(np.mean((np.asarray(vector) - self._best) ** 2))
        return CHANCE + (BEST - CHANCE) * float(np.exp(-distance / (2 * WIDTH**2)))

    def score(self, vector: Sequence[float]) -> float:
        """Return what a trial sees: the share of right answers among the items."""
        return float(self._dice.binomial(self._items, self.accuracy(vector))) / self._items


def unit_genes(number: int) -> tuple[Gene, ...]:
    """Return genes whose values are the numbers of the vector."""
    return tuple(Gene(f"weight{i}", Hole(low=0.0, high=1.0)) for i in range(number))


def new_strategy(genes: int, settings: SearchSettings) -> Strategy:
    """Return a strategy that begins in the middle of the unit cube."""
    return make_strategy(settings, unit_genes(genes), (0.5,) * genes)


def luckiest(strategy: Strategy, quiz: Quiz, trials: int) -> Vector:
    """Run a search on the quiz and return the trial with the best score seen."""
    seen: list[tuple[float, Vector]] = []
    for _ in range(trials):
        (proposal,) = strategy.ask(1)
        score = quiz.score(proposal.vector)
        seen.append((score, proposal.vector))
        strategy.tell([Result(proposal.id, "scored", (score,))])
    return max(seen, key=lambda trial: trial[0])[1]
