"""The suite passes every registered strategy, and each of its checks fails one that breaks its promise."""

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from evomerge.recipe.space import Gene, Vector
from evomerge.strategies.search import Proposal, Result, SearchSettings, Strategy, make_strategy, strategy_names
from evomerge.strategies.search.random import RandomSearch
from evomerge.strategies.search.registry import learning_from_several
from evomerge.testing import strategies as suite
from evomerge.testing.strategies import CHECKS, Subject, check_strategy

SIZES = {"grid": (2, 6)}
"""A grid of many genes is refused, so it is tried with few."""


def registered(name: str, objectives: int = 1) -> Subject:
    def make(genes: Sequence[Gene], start: Vector, seed: int) -> Strategy:
        return make_strategy(SearchSettings(strategy=name, seed=seed), genes, start, objectives=objectives)

    return Subject(make, *SIZES.get(name, (6, 200)), objectives)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", strategy_names())
def test_every_registered_strategy_keeps_every_promise(name: str, check: Callable[[Subject], None]) -> None:
    check(registered(name))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", learning_from_several())
def test_with_several_objectives_as_well(name: str, check: Callable[[Subject], None]) -> None:
    check(registered(name, 3))


class Honest(RandomSearch):
    """Random search that keeps every promise; what follows breaks one each."""

    def __init__(self, genes: int, start: Vector, seed: int) -> None:
        super().__init__(genes, seed, (start,))


class LeavesTheCube(Honest):
    def _propose(self, number: int) -> Vector:
        return tuple(x * 1.2 for x in super()._propose(number))


class ForgetsAGene(Honest):
    def _propose(self, number: int) -> Vector:
        return super()._propose(number)[1:]


class ReturnsNumpy(Honest):
    def _propose(self, number: int) -> Vector:
        return tuple(np.array(super()._propose(number)))


class Collapses(Honest):
    def _propose(self, number: int) -> Vector:
        super()._propose(number)
        return self._opening[0]


class DrawsFromTheGlobalState(Honest):
    def _propose(self, number: int) -> Vector:
        return tuple(random.random() for _ in super()._propose(number))


class SeedsTheGlobalState(Honest):
    def __init__(self, genes: int, start: Vector, seed: int) -> None:
        super().__init__(genes, start, seed)
        np.random.seed(seed)  # noqa: NPY002  # the mistake


class NoTwoAreAlike(Honest):
    instances = 0

    def __init__(self, genes: int, start: Vector, seed: int) -> None:
        NoTwoAreAlike.instances += 1
        super().__init__(genes, start, seed + NoTwoAreAlike.instances)


class ListensToBatches(Honest):
    def ask(self, n: int) -> list[Proposal]:
        if n > 1:
            self._generator.random()
        return super().ask(n)


class MovesWhenLookedAt(Honest):
    def finalists(self) -> list[Vector]:
        return [tuple(self._generator.random(self._genes).tolist())]


class ForgivesEverything(Honest):
    def tell(self, results: Sequence[Result]) -> None:
        for result in results:
            self._open.pop(result.id, None)


class LearnsBeforeItChecks(Honest):
    def tell(self, results: Sequence[Result]) -> None:
        for result in results:
            super().tell([result])


class AcceptsNegativeNumbers(Honest):
    def ask(self, n: int) -> list[Proposal]:
        return super().ask(max(n, 0))


class DiesOfFailures(Honest):
    def tell(self, results: Sequence[Result]) -> None:
        super().tell(results)
        if any(result.objectives is None for result in results):
            raise RuntimeError("cannot learn from nothing")


class DividesByTheRange(Honest):
    def __init__(self, genes: int, start: Vector, seed: int) -> None:
        super().__init__(genes, start, seed)
        self._seen: list[float] = []

    def tell(self, results: Sequence[Result]) -> None:
        super().tell(results)
        self._seen += [result.objectives[0] for result in results if result.objectives]
        if len(self._seen) > 9:
            _ = 1 / (max(self._seen) - min(self._seen))


class StopsWithoutSaying(Honest):
    def ask(self, n: int) -> list[Proposal]:
        return super().ask(min(n, 39))


BROKEN: list[tuple[type[Honest], Callable[[Subject], None]]] = [
    (LeavesTheCube, suite.proposes_points_of_the_unit_cube),
    (ForgetsAGene, suite.proposes_points_of_the_unit_cube),
    (ReturnsNumpy, suite.proposes_points_of_the_unit_cube),
    (Collapses, suite.keeps_proposing_new_points),
    (DrawsFromTheGlobalState, suite.depends_on_the_seed_alone),
    (DrawsFromTheGlobalState, suite.leaves_global_random_states_alone),
    (SeedsTheGlobalState, suite.leaves_global_random_states_alone),
    (NoTwoAreAlike, suite.depends_on_the_seed_alone),
    (NoTwoAreAlike, suite.replays_its_log),
    (ListensToBatches, suite.knows_no_batches),
    (MovesWhenLookedAt, suite.finalists_are_only_read),
    (ForgivesEverything, suite.refuses_wrong_results),
    (LearnsBeforeItChecks, suite.refuses_wrong_results),
    (AcceptsNegativeNumbers, suite.refuses_to_ask_for_less_than_nothing),
    (DiesOfFailures, suite.survives_failures),
    (DividesByTheRange, suite.survives_strange_fitness),
    (StopsWithoutSaying, suite.ends_when_done),
]


def subject(kind: type[Honest]) -> Subject:
    return Subject(lambda genes, start, seed: kind(len(genes), start, seed))


def test_an_honest_strategy_passes() -> None:
    check_strategy(subject(Honest).make)


@pytest.mark.parametrize(("kind", "check"), BROKEN, ids=lambda value: value.__name__)
def test_a_broken_promise_is_found(kind: type[Honest], check: Callable[[Subject], None]) -> None:
    with pytest.raises((AssertionError, RuntimeError, ZeroDivisionError)):
        check(subject(kind))
    with pytest.raises((AssertionError, RuntimeError, ZeroDivisionError)):
        check_strategy(subject(kind).make)


def test_every_check_is_shown_to_fail() -> None:
    assert {check for _, check in BROKEN} == set(CHECKS)
