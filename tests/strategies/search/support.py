"""Searching in tests: a strategy by name, a smooth fitness, one trial after the other."""

from collections.abc import Callable, Sequence

from benchmarks.search.quiz import new_strategy
from evomerge.recipe.space import Vector
from evomerge.strategies.search import Result, SearchSettings, Strategy

Fitness = Callable[[Vector], float]


def made(name: str, genes: int, **settings: object) -> Strategy:
    """Return a strategy that begins in the middle."""
    return new_strategy(genes, SearchSettings.model_validate({"strategy": name, **settings}))


def sphere(target: Sequence[float], stretch: float = 1.0) -> Fitness:
    """Return minus the mean squared distance from a target, the last gene `stretch` times as steep as the first."""
    count = len(target)
    weights = [stretch ** (i / max(count - 1, 1)) for i in range(count)]
    return lambda vector: -sum(w * (x - t) ** 2 for w, x, t in zip(weights, vector, target, strict=True)) / count


def run(strategy: Strategy, fitness: Fitness, trials: int) -> list[tuple[float, Vector]]:
    """Ask and tell one at a time; return fitness and vector of every trial."""
    seen: list[tuple[float, Vector]] = []
    for _ in range(trials):
        (proposal,) = strategy.ask(1)
        seen.append((fitness(proposal.vector), proposal.vector))
        strategy.tell([Result(proposal.id, "scored", (seen[-1][0],))])
    return seen
