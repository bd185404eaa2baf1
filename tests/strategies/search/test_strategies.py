"""What holds for single strategies beyond the conformance suite, and tells in any order a machine can think of."""

import statistics
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.strategies.search import Proposal, Result, strategy_names
from tests.strategies.search.support import made, run, sphere


@pytest.mark.parametrize("name", ["de", "pso", "tbpsa"])
def test_learns_from_fitness(name: str) -> None:
    target = [0.2, 0.8, 0.3, 0.7, 0.4]
    seeds = range(5)
    ours = statistics.median(-max(run(made(name, 5, seed=seed), sphere(target), 300))[0] for seed in seeds)
    random = statistics.median(-max(run(made("random", 5, seed=seed), sphere(target), 300))[0] for seed in seeds)
    assert ours < random / 2


@pytest.mark.parametrize("name", ["cma", "de", "pso", "tbpsa"])
def test_zero_and_one_can_be_reached(name: str) -> None:
    vectors = [vector for _, vector in run(made(name, 3), sphere([0.0, 1.0, 0.5]), 300)]
    assert any(vector[0] == 0.0 for vector in vectors)
    assert any(vector[1] == 1.0 for vector in vectors)


@pytest.mark.parametrize("name", ["cma", "de", "pso", "tbpsa"])
@pytest.mark.parametrize("population", [4, 33])
def test_small_and_odd_populations_work(name: str, population: int) -> None:
    found = run(made(name, 3, population=population), sphere([0.2, 0.3, 0.4]), 200)
    assert max(found)[0] > -0.01


def test_random_search_is_even_in_every_gene() -> None:
    vectors = [vector for _, vector in run(made("random", 3, seed=5), sphere([0.5] * 3), 2001)][1:]
    for gene in zip(*vectors, strict=True):
        assert statistics.mean(gene) == pytest.approx(0.5, abs=0.03)
        assert statistics.pstdev(gene) == pytest.approx(12**-0.5, abs=0.02)


def test_the_centre_of_tbpsa_is_a_finalist_once_it_has_moved() -> None:
    strategy = made("tbpsa", 4)
    assert strategy.finalists() == []
    run(strategy, sphere([0.2] * 4), 300)
    assert strategy.finalists()[0] == pytest.approx((0.2,) * 4, abs=0.1)


Step = tuple[str, int, float | None]
steps: st.SearchStrategy[Step] = st.tuples(
    st.sampled_from(["ask", "tell", "again", "unknown"]),
    st.integers(0, 12),
    st.none() | st.floats(-1e15, 1e15, allow_subnormal=False),
)


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from([name for name in strategy_names() if name != "grid"]), plan=st.lists(steps, max_size=60))
def test_any_order_of_asks_and_tells_is_survived_and_replays(name: str, plan: Sequence[Step]) -> None:
    assert follow(name, plan, mistakes=True) == follow(name, plan, mistakes=False)


def follow(name: str, plan: Sequence[Step], *, mistakes: bool) -> list[Proposal]:
    """Follow a plan and return what was asked; wrong tells are left out of it, or made and expected to be refused."""
    strategy = made(name, 3, **({} if name == "random" else {"population": 4}))
    asked: list[Proposal] = []
    outstanding: list[int] = []
    told: list[int] = []
    for what, number, value in plan:
        if what == "ask":
            new = strategy.ask(number)
            asked += new
            outstanding += [proposal.id for proposal in new]
        elif what == "tell" and outstanding:
            told.append(outstanding.pop(number % len(outstanding)))
            strategy.tell([result(told[-1], value)])
        elif mistakes and (what == "unknown" or told):
            wrong = told[number % len(told)] if told else len(asked)
            with pytest.raises(ValueError, match=r"told before|never asked"):
                strategy.tell([result(wrong, value)])
    assert all(0.0 <= x <= 1.0 for proposal in asked for x in proposal.vector)
    return asked


def result(number: int, value: float | None) -> Result:
    return Result(number, "failed") if value is None else Result(number, "scored", (value,))
