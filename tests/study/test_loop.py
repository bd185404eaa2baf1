"""The one loop: order, replay, budgets, failures, stopping."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import BackendError, CandidateError, StudyBroken
from evomerge.recipe.holes import Hole
from evomerge.recipe.space import Space
from evomerge.strategies.search.make import make_strategy
from evomerge.strategies.search.protocol import Result
from evomerge.strategies.search.random import RandomSearch
from evomerge.strategies.search.settings import SearchSettings
from evomerge.study.evaluate import Work
from evomerge.study.fitness import Cost, Evaluated
from evomerge.study.journal import Journal
from evomerge.study.limits import Limits, Stop
from evomerge.study.loop import Search
from evomerge.study.objectives import COST, MEAN
from evomerge.study.search import identify

Point = dict[str, float]
SPACE: Space[Any] = Space({"x": Hole(0, 1), "y": Hole(0, 1)})


def hill(point: Point) -> float:
    return 1 - (point["x"] - 0.3) ** 2 - (point["y"] - 0.8) ** 2


@dataclass
class Scripted:
    """Scores points by a function; `turns` says how many turns of the event loop the n-th evaluation takes."""

    fitness: Callable[[Point], float] = hill
    turns: Callable[[int], int] = lambda _: 0
    before: Callable[[int], None] = lambda _: None
    begun: int = 0
    order: list[int] = field(default_factory=list[int])

    async def evaluate(self, work: Work[Point]) -> Evaluated:
        number = self.begun
        self.begun += 1
        self.before(number)
        for _ in range(self.turns(number)):
            await asyncio.sleep(0)
        self.order.append(number)
        return Evaluated({"t": {"item": self.fitness(work.recipe)}})


def make(
    journal: Journal, evaluator: Scripted, *, trials: int = 20, strategy: str = "cma", **more: Any
) -> Search[Point]:
    given: dict[str, Any] = {"limits": Limits(trials=trials)} | more
    return Search(
        space=SPACE,
        strategy=make_strategy(SearchSettings(strategy=strategy, seed=3), SPACE.genes, SPACE.start),
        evaluator=evaluator,
        journal=journal,
        weights={"t": 1.0},
        identify=identify,
        **given,
    )


def log(journal: Journal) -> list[tuple[str, int | None, dict[str, Any]]]:
    """The log without the times in it."""
    return [
        (event.kind, event.trial, {key: value for key, value in event.data.items() if key != "elapsed"})
        for event in journal.events()
    ]


@pytest.mark.parametrize("strategy", ["cma", "de", "random"])
def test_a_search_that_is_gone_on_with_equals_one_that_was_not_interrupted(strategy: str, tmp_path: Path) -> None:
    whole = Journal(None)
    asyncio.run(make(whole, Scripted(), strategy=strategy).run())
    for number, trials in enumerate((3, 4, 11, 20)):
        parts = Journal(tmp_path / "j.db")
        search = make(parts, Scripted(), trials=trials, strategy=strategy)
        assert asyncio.run(search.run()) == "trials"
        assert len(search.trials) == trials, number
        parts.close()
    again = Journal(tmp_path / "j.db")
    assert [entry for entry in log(again) if entry[0] != "decision"] == [
        entry for entry in log(whole) if entry[0] != "decision"
    ]


@given(
    delays=st.lists(st.integers(0, 5), min_size=12, max_size=12),
    slots=st.integers(1, 4),
    cuts=st.lists(st.integers(0, 11), max_size=3),
)
@settings(max_examples=25, deadline=None)
def test_in_strict_order_neither_timing_nor_interruptions_change_the_log(
    delays: list[int], slots: int, cuts: list[int]
) -> None:
    def run(journal: Journal, evaluator: Scripted, stop: Stop) -> None:
        asyncio.run(make(journal, evaluator, trials=12, slots=slots, stop=stop).run())

    steady, ragged = Journal(None), Journal(None)
    run(steady, Scripted(), Stop())
    for cut in cuts:
        stop = Stop()

        def interrupt(number: int, cut: int = cut, stop: Stop = stop) -> None:
            if number == cut:
                stop.request("test")

        run(ragged, Scripted(turns=lambda number: delays[number % 12], before=interrupt), stop)
    run(ragged, Scripted(turns=lambda number: delays[-number % 12]), Stop())
    assert log(ragged) == log(steady)


def test_in_strict_order_an_ask_sees_the_trials_up_to_its_slots() -> None:
    journal = Journal(None)
    asyncio.run(make(journal, Scripted(turns=lambda number: (number * 7) % 5), trials=9, slots=3).run())
    told = 0
    for kind, trial, _ in log(journal):
        if kind == "tell":
            assert trial == told
            told += 1
        elif kind == "ask" and trial is not None:
            assert told == max(0, trial - 2)


def test_in_arrival_order_tells_enter_as_they_come_and_replay_exactly(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    slow_first = Scripted(turns=lambda number: 20 if number == 0 else 0)
    asyncio.run(make(journal, slow_first, trials=8, slots=2, order="arrival").run())
    tells = [trial for kind, trial, _ in log(journal) if kind == "tell" and trial is not None]
    assert tells != sorted(tells)
    before = log(journal)
    search = make(journal, Scripted(), trials=8, slots=2, order="arrival")
    asyncio.run(search.run())
    assert log(journal) == before
    assert [trial.number for trial in search.trials] == tells


def test_a_recipe_that_cannot_be_is_recorded_and_told() -> None:
    def fitness(point: Point) -> float:
        if point["x"] > 0.5:
            raise CandidateError("x is too large")
        return hill(point)

    journal = Journal(None)
    search = make(journal, Scripted(fitness))
    asyncio.run(search.run())
    failed = [trial for trial in search.trials if trial.fitness is None]
    assert failed
    assert {trial.error for trial in failed} == {"x is too large"}
    assert len(search.trials) == 20


def test_a_backend_that_fails_is_asked_again_and_the_log_does_not_show_it() -> None:
    def flaky(number: int) -> None:
        if number % 3 == 1:
            raise BackendError("lost")

    steady, shaken = Journal(None), Journal(None)
    asyncio.run(make(steady, Scripted()).run())
    asyncio.run(make(shaken, Scripted(before=flaky)).run())
    assert log(shaken) == log(steady)


def test_a_backend_that_keeps_failing_stops_the_search_where_it_can_go_on() -> None:
    def broken(number: int) -> None:
        if number >= 5:
            raise BackendError("gone")

    journal, steady = Journal(None), Journal(None)
    with pytest.raises(BackendError, match="gone"):
        asyncio.run(make(journal, Scripted(before=broken)).run())
    asyncio.run(make(journal, Scripted()).run())
    asyncio.run(make(steady, Scripted()).run())
    assert log(journal) == log(steady)


def test_too_few_answers_are_a_failed_trial() -> None:
    class Half(Scripted):
        async def evaluate(self, work: Work[Point]) -> Evaluated:
            whole = (await super().evaluate(work)).scores
            return Evaluated({"t": {**whole["t"], "unanswered": None}})

    search = make(Journal(None), Half(), trials=2, coverage=0.6)
    asyncio.run(search.run())
    assert [trial.error for trial in search.trials] == ["only 50% of the items were answered, and 60% are needed"] * 2


def test_hours_end_a_search_early_enough_for_what_follows() -> None:
    now = 0.0

    def tick(number: int) -> None:
        nonlocal now
        now += 600

    def limits(hours: float, used: float = 0.0) -> Limits:
        return Limits(trials=100, hours=hours, used=used, reserve=lambda: 1200, clock=lambda: now)

    journal = Journal(None)
    search = make(journal, Scripted(before=tick), limits=limits(2))
    assert asyncio.run(search.run()) == "hours"
    assert len(search.trials) == 10
    more = make(journal, Scripted(before=tick), limits=limits(2, used=6000))
    assert asyncio.run(more.run()) == "hours"
    assert len(more.trials) == 10
    longer = make(journal, Scripted(before=tick), limits=limits(3, used=6000))
    assert asyncio.run(longer.run()) == "hours"
    assert len(longer.trials) == 16


def test_an_exhausted_grid_ends_the_search() -> None:
    search = make(Journal(None), Scripted(), strategy="grid", trials=1000)
    assert asyncio.run(search.run()) == "done"
    assert len(search.trials) == 25


def test_a_log_that_this_strategy_did_not_write_is_refused() -> None:
    journal = Journal(None)
    asyncio.run(make(journal, Scripted(), trials=5, strategy="random").run())
    with pytest.raises(StudyBroken, match="cannot be replayed"):
        asyncio.run(make(journal, Scripted(), trials=5, strategy="cma").run())


def test_the_journal_is_small() -> None:
    """Below 2 KB a trial at 50 genes, scores of items not counted."""
    wide: Space[Any] = Space({f"gene {index}": Hole(0, 1) for index in range(50)})
    journal = Journal(None)
    search = Search(
        space=wide,
        strategy=make_strategy(SearchSettings(seed=3), wide.genes, wide.start),
        evaluator=Scripted(lambda point: sum(point.values())),
        journal=journal,
        limits=Limits(trials=20),
        weights={"t": 1.0},
        identify=identify,
    )
    asyncio.run(search.run())
    size = sum(len(str(dict(event.data))) + len(event.kind) + 12 for event in journal.events())
    assert size / 20 < 2000


class Priced(Scripted):
    """Scores points, at a cost that pulls the other way."""

    async def evaluate(self, work: Work[Point]) -> Evaluated:
        found = await super().evaluate(work)
        return Evaluated(found.scores, {"t": {"item": Cost(usd=work.recipe["x"] / 1000)}})


SEVERAL = (MEAN, COST)


def priced(journal: Journal, evaluator: Scripted, **more: Any) -> Search[Point]:
    strategy = make_strategy(SearchSettings(strategy="de", seed=3), SPACE.genes, SPACE.start, objectives=2)
    search = make(journal, evaluator, objectives=SEVERAL, **more)
    search.strategy = strategy
    return search


def test_several_objectives_are_journalled_in_their_units_and_told_with_their_signs() -> None:
    told: list[Result] = []

    class Listening(RandomSearch):
        def tell(self, results: Sequence[Result]) -> None:
            told.extend(results)
            super().tell(results)

    journal = Journal(None)
    search = make(journal, Priced(), trials=5, objectives=SEVERAL)
    search.strategy = Listening(2, 3, [(0.5, 0.5)])
    asyncio.run(search.run())
    tells = [event.data for event in journal.events() if event.kind == "tell"]
    assert [tell["objectives"]["mean"] for tell in tells] == [tell["fitness"] for tell in tells]
    assert [trial.values for trial in search.trials] == [tell["objectives"] for tell in tells]
    assert [tell["objectives"]["cost"] for tell in tells] == [pytest.approx(one.recipe["x"]) for one in search.trials]
    assert [result.objectives for result in told] == [(one.values["mean"], -one.values["cost"]) for one in search.trials]


@pytest.mark.parametrize("slots", [1, 5])
def test_a_search_with_several_objectives_that_was_stopped_ends_as_an_undisturbed_one(slots: int) -> None:
    steady, shaken = Journal(None), Journal(None)
    asyncio.run(priced(steady, Priced(turns=lambda number: number % 3), trials=90, slots=slots).run())
    for cut in (7, 30, 31, 200):
        stop = Stop()

        def interrupt(number: int, cut: int = cut, stop: Stop = stop) -> None:
            if number == cut:
                stop.request("enough")

        evaluator = Priced(turns=lambda number: number % 5, before=interrupt)
        asyncio.run(priced(shaken, evaluator, trials=90, slots=slots, stop=stop).run())
    assert log(shaken) == log(steady)


def test_one_objective_is_journalled_as_it_always_was() -> None:
    journal = Journal(None)
    asyncio.run(make(journal, Priced(), trials=2).run())
    tells = [event.data for event in journal.events() if event.kind == "tell"]
    assert set(tells[0]) == {"fitness", "standard_error", "coverage", "items", "tasks", "elapsed"}


def test_a_trial_of_unknown_cost_has_failed_and_says_why() -> None:
    search = priced(Journal(None), Scripted(), trials=2)
    asyncio.run(search.run())
    assert [trial.error for trial in search.trials] == ["the cost of item item of task t is not known"] * 2
