import random
import statistics
import warnings
from typing import Any, cast

import pytest

from benchmarks.search.quiz import Quiz, luckiest
from evomerge.strategies.search import Result
from evomerge.strategies.search.cma import CMA, DIAGONAL_FROM, distribution_centre
from evomerge.strategies.search.engine import Candidate, Optimizer
from tests.strategies.search.support import made, run, sphere


def cma(genes: int, **settings: object) -> CMA:
    strategy = made("cma", genes, **settings)
    assert isinstance(strategy, CMA)
    return strategy


def pycma(strategy: CMA) -> Any:
    """Return the inside of nevergrad's CMA."""
    return cast(Any, strategy._optimizer)._es


@pytest.mark.parametrize(("genes", "trials", "stretch"), [(1, 40, 1.0), (4, 80, 1.0), (12, 200, 1.0), (12, 200, 30.0)])
def test_finds_a_smooth_best_point_better_than_random_search(genes: int, trials: int, stretch: float) -> None:
    def regret(name: str, seed: int) -> float:
        target = [random.Random(seed).uniform(0.1, 0.9) for _ in range(genes)]
        return -max(run(made(name, genes, seed=seed), sphere(target, stretch), trials))[0]

    seeds = range(7)
    ours = statistics.median(regret("cma", seed) for seed in seeds)
    assert ours < statistics.median(regret("random", seed) for seed in seeds) / 2


def test_the_centre_beats_the_luckiest_trial_on_noisy_yes_no_items() -> None:
    centres, lucky = list[float](), list[float]()
    for seed in range(16):
        quiz, strategy = Quiz(genes=20, items=200, seed=seed), cma(20, seed=seed)
        lucky.append(quiz.accuracy(luckiest(strategy, quiz, trials=100)))
        centres.append(quiz.accuracy(strategy.finalists()[0]))
    assert statistics.mean(centres) > statistics.mean(lucky) + 0.02


def test_begins_at_the_start_and_steps_as_far_as_it_is_told() -> None:
    for step in (0.02, 0.2):
        strategy = cma(40, first_step=step, population=40)
        start, *others = [proposal.vector for proposal in strategy.ask(41)]
        assert start == (0.5,) * 40
        assert statistics.stdev(x for vector in others for x in vector) == pytest.approx(step, rel=0.1)


def test_weights_settle_at_the_very_ends_of_their_ranges() -> None:
    strategy = cma(10)
    run(strategy, sphere([0.0] * 5 + [1.0] * 5), 300)
    (centre,) = strategy.finalists()
    assert sum(x == 0.0 for x in centre[:5]) >= 4
    assert sum(x == 1.0 for x in centre[5:]) >= 4


def test_a_population_is_a_generation() -> None:
    strategy = cma(5, population=12)
    run(strategy, sphere([0.2] * 5), 11)
    assert strategy.finalists() == []
    run(strategy, sphere([0.2] * 5), 1)
    assert len(strategy.finalists()) == 1


def test_goes_on_where_it_is_on_a_flat_fitness() -> None:
    strategy = cma(6, population=10)
    run(strategy, lambda vector: float(vector[0] > 0.3), 300)
    assert pycma(strategy).countiter == 30


@pytest.mark.parametrize(("genes", "diagonal"), [(DIAGONAL_FROM - 1, False), (DIAGONAL_FROM, True)])
def test_learns_only_a_diagonal_from_fifty_genes_on(genes: int, diagonal: bool) -> None:
    strategy = cma(genes, population=8)
    fitness = sphere([0.2] * genes)
    run(strategy, fitness, 16)
    assert (pycma(strategy).opts["CMA_diagonal"] is True) is diagonal
    assert len(strategy.finalists()[0]) == genes


def test_a_start_that_fails_is_left_towards_what_works() -> None:
    strategy = cma(6, seed=1)
    for _ in range(200):
        (proposal,) = strategy.ask(1)
        works = proposal.vector[0] < 0.35
        fitness = sphere([0.1, 0.5, 0.5, 0.5, 0.5, 0.5])(proposal.vector)
        strategy.tell([Result(proposal.id, "scored", (fitness,)) if works else Result(proposal.id, "failed")])
    assert strategy.finalists()[0][0] < 0.25


class WithoutInsides:
    """A nevergrad optimizer that shows nothing but its public side."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._inner = optimizer

    @property
    def parametrization(self) -> Any:
        return self._inner.parametrization

    def ask(self) -> Candidate:
        return self._inner.ask()

    def tell(self, candidate: Candidate, loss: float) -> None:
        self._inner.tell(candidate, loss)

    def recommend(self) -> Candidate:
        return self._inner.recommend()


def test_another_nevergrad_gives_the_best_trial_as_the_centre_and_says_so() -> None:
    strategy = cma(4)
    best = max(run(strategy, sphere([0.3] * 4), 120))[1]
    with pytest.warns(RuntimeWarning, match="does not show the centre"):
        assert distribution_centre(WithoutInsides(strategy._optimizer)) == pytest.approx(best)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert strategy.finalists()[0] == pytest.approx((0.3,) * 4, abs=0.1)
