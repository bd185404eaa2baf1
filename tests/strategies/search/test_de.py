"""Differential evolution with several objectives: what it is told, what it replays, and that it finds a front."""

import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.search.quiz import unit_genes
from evomerge.errors import ConfigError
from evomerge.recipe.space import Vector
from evomerge.strategies.search import Proposal, Result, SearchSettings, Strategy, make_strategy

ROOT = Path(__file__).resolve().parents[3]
TARGETS = ((0.2, 0.5, 0.5, 0.5), (0.8, 0.5, 0.5, 0.5))
"""Where either objective is best; the trade-off is the line between them."""


def pair(vector: Vector) -> tuple[float, float]:
    one, other = (-sum((x - t) ** 2 for x, t in zip(vector, target, strict=True)) for target in TARGETS)
    return one, other


def made(name: str, seed: int = 1, suggestions: Sequence[Vector] = (), **settings: object) -> Strategy:
    chosen = SearchSettings.model_validate({"strategy": name, "seed": seed, **settings})
    return make_strategy(chosen, unit_genes(4), (0.5,) * 4, suggestions, objectives=2)


def searched(strategy: Strategy, trials: int) -> list[Proposal]:
    asked: list[Proposal] = []
    for _ in range(trials):
        asked += strategy.ask(1)
        strategy.tell([Result(asked[-1].id, "scored", pair(asked[-1].vector))])
    return asked


def off_the_line(asked: Sequence[Proposal]) -> float:
    """Return the median distance from the true front of the 30 last proposals."""
    return statistics.median(sum((x - 0.5) ** 2 for x in proposal.vector[1:]) ** 0.5 for proposal in asked[-30:])


def test_it_draws_near_to_a_known_front_and_random_search_does_not() -> None:
    ours = statistics.median(off_the_line(searched(made("de", seed), 400)) for seed in range(3))
    random = statistics.median(off_the_line(searched(made("random", seed), 400)) for seed in range(3))
    assert ours < random / 3


@pytest.mark.parametrize("name", ["cma", "pso", "tbpsa"])
def test_strategies_of_one_number_name_those_of_several(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' learns from one number.*choose one of de, grid, random"):
        made(name)


def test_the_number_of_objectives_stays_the_same() -> None:
    strategy = made("de")
    first, second = strategy.ask(2)
    strategy.tell([Result(first.id, "scored", (1.0, 2.0))])
    with pytest.raises(ValueError, match="3"):
        strategy.tell([Result(second.id, "scored", (1.0, 2.0, 3.0))])
    strategy.tell([Result(second.id, "scored", (1.0, 2.0))])


def test_failures_before_the_first_result_are_learnt_after_it() -> None:
    strategy = made("de", population=6)
    asked = strategy.ask(20)
    strategy.tell([Result(proposal.id, "failed") for proposal in asked[:12]])
    strategy.tell([Result(proposal.id, "scored", pair(proposal.vector)) for proposal in asked[12:]])
    assert off_the_line(searched(strategy, 300)) < 0.2


LATE = """
from tests.strategies.search.test_de import late
print(late())
"""


def late() -> list[Vector]:
    """Tell suggestions long after the population is full, and return what is proposed then."""
    strategy = made("de", suggestions=[(0.1, 0.2, 0.3, 0.4), (0.9, 0.8, 0.7, 0.6)], population=8)
    asked = strategy.ask(60)
    strategy.tell([Result(proposal.id, "scored", pair(proposal.vector)) for proposal in reversed(asked)])
    return [proposal.vector for proposal in strategy.ask(20)]


def test_points_that_are_told_late_replay_in_another_process() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        [sys.executable, "-c", LATE], capture_output=True, text=True, cwd=ROOT, env=environment, check=True
    )
    assert done.stdout.strip() == str(late())
