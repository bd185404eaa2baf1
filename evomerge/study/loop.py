"""The one loop: ask, decode, evaluate, journal, tell.

What was asked and told before is replayed from the journal, never decided again. In strict order an ask of trial k sees
exactly the tells up to k - slots, in their order, so that an interrupted search and an undisturbed one are the same
search; in arrival order tells enter as they come. Budgets, signals and progress are asked and told, not done here.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from evomerge.errors import BackendError, BudgetSpent, CandidateError, StudyBroken
from evomerge.recipe.space import Space, Vector
from evomerge.strategies.search.protocol import Proposal, Result, Strategy
from evomerge.study.evaluate import Evaluator, Work
from evomerge.study.fitness import Evaluated, Fitness, fitness
from evomerge.study.journal import Journal
from evomerge.study.limits import Limits, Stop
from evomerge.study.objectives import MEAN, Objective, Values, gains, measure

T = TypeVar("T")
BACKEND_ATTEMPTS = 3
"""How often a trial is asked in all when the backend fails."""


@dataclass(frozen=True, slots=True)
class Trial(Generic[T]):
    """A recipe that was proposed and what became of it; a failed one has no `fitness`, and `error` says why.

    `values` has the value of each objective of a search that has several.
    """

    number: int
    recipe: T
    recipe_id: str
    vector: Vector
    fitness: Fitness | None
    error: str | None = None
    values: Values = field(default_factory=dict[str, float])


class Observer(Generic[T]):
    """Is told what happens; does nothing by itself."""

    def asked(self, number: int) -> None:
        """A trial was asked."""

    def told(self, trial: Trial[T], *, replayed: bool) -> None:
        """A trial has its fitness, or failed."""


@dataclass(frozen=True, slots=True)
class _Open(Generic[T]):
    """A trial that was asked and not yet told."""

    proposal: Proposal
    work: Work[T]


@dataclass
class Search(Generic[T]):
    """One search over a space: its parts, and the state that its journal can always rebuild."""

    space: Space[T]
    strategy: Strategy
    evaluator: Evaluator[T]
    journal: Journal
    limits: Limits
    weights: Mapping[str, float]
    identify: Callable[[T], str]
    objectives: tuple[Objective, ...] = (MEAN,)
    coverage: float = 1.0
    slots: int = 1
    order: Literal["strict", "arrival"] = "strict"
    observer: Observer[T] = field(default_factory=Observer[T])
    stop: Stop = field(default_factory=Stop)

    trials: list[Trial[T]] = field(default_factory=list[Trial[T]], init=False)
    _open: dict[int, _Open[T]] = field(default_factory=dict[int, _Open[T]], init=False)
    _running: "dict[int, asyncio.Task[Evaluated]]" = field(default_factory=dict[int, Any], init=False)
    _asked: int = field(default=0, init=False)
    _ended: str | None = field(default=None, init=False)

    async def run(self) -> str:
        """Search until the budget or the strategy ends it, or somebody stops it; return which of them."""
        self._replay()
        try:
            while self.stop.reason is None:
                self._start_trials()
                if not self._open:
                    return self._ended or "done"
                number = await self._next_finished()
                if number is not None:
                    try:
                        await self._finish(number)
                    except BudgetSpent as spent:
                        await self._cut(spent.reason)
            return "stopped"
        finally:
            await self._set_back()

    def _start_trials(self) -> None:
        """Start what is open from before, and ask for more while there is room and budget."""
        while len(self._open) < self.slots and self._ended is None:
            reason = self.limits.end_of_search(self._asked)
            proposals = [] if reason else self.strategy.ask(1)
            if not proposals:
                self._end(reason or "done")
                break
            self._ask(proposals[0])
        for number, trial in self._open.items():
            if number not in self._running:
                self._running[number] = asyncio.create_task(self._evaluate(trial.work))

    def _ask(self, proposal: Proposal) -> None:
        self.journal.append("ask", self._asked, {"vector": proposal.vector, "stage": proposal.stage})
        self._opened(proposal)
        self.observer.asked(self._asked - 1)

    def _opened(self, proposal: Proposal) -> None:
        recipe = self.space.decode(proposal.vector)
        self._open[self._asked] = _Open(proposal, Work(recipe, self.identify(recipe), "search"))
        self._asked += 1

    async def _evaluate(self, work: Work[T]) -> Evaluated:
        for _ in range(BACKEND_ATTEMPTS - 1):
            with suppress(BackendError):
                return await self.evaluator.evaluate(work)
        return await self.evaluator.evaluate(work)

    async def _next_finished(self) -> int | None:
        """Return the number of the trial to tell next, or None when somebody asked to stop first."""
        wanted = {min(self._open)} if self.order == "strict" else set(self._open)
        stopping = asyncio.create_task(self.stop.wait())
        try:
            tasks = [self._running[number] for number in sorted(wanted)]
            await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        return next((number for number in sorted(wanted) if self._running[number].done()), None)

    async def _finish(self, number: int) -> None:
        """Journal and tell one finished trial."""
        data: dict[str, Any] = {}
        try:
            found = await self._running.pop(number)
            scored = fitness(found.scores, self.weights)
            if scored is None or scored.coverage < self.coverage:
                share = 0.0 if scored is None else scored.coverage
                data["error"] = f"only {share:.0%} of the items were answered, and {self.coverage:.0%} are needed"
            else:
                if len(self.objectives) > 1:
                    data["objectives"] = measure(found, scored, self.weights, self.objectives)
                data["fitness"] = scored.value
                data["standard_error"] = scored.standard_error
                data["coverage"] = scored.coverage
                data["items"] = scored.items
                data["tasks"] = dict(scored.tasks)
        except CandidateError as error:
            data["error"] = str(error)
        self.journal.append("tell", number, data | {"elapsed": round(self.limits.elapsed, 3)})
        self.journal.commit()
        self._tell(number, data, replayed=False)

    def _tell(self, number: int, data: Mapping[str, Any], *, replayed: bool) -> None:
        trial = self._open.pop(number)
        scored = None
        values: Values = data.get("objectives", {})
        if "fitness" in data:
            scored = Fitness(data["fitness"], data["standard_error"], data["coverage"], data["items"], data["tasks"])
            told = gains(values, self.objectives) if values else (scored.value,)
            result = Result(trial.proposal.id, "scored", told, scored.standard_error, scored.items)
        else:
            result = Result(trial.proposal.id, "failed")
        self.strategy.tell([result])
        recipe, recipe_id = trial.work.recipe, trial.work.recipe_id
        done = Trial(number, recipe, recipe_id, trial.proposal.vector, scored, data.get("error"), values)
        self.trials.append(done)
        self.observer.told(done, replayed=replayed)

    async def _cut(self, reason: str) -> None:
        """End the search in the middle of what cannot be paid; with a larger budget it is open again."""
        await self._set_back()
        cut, self._open = sorted(self._open), {}
        self._end(reason, cut)

    def _end(self, reason: str, cut: Sequence[int] = ()) -> None:
        self._ended = reason
        decision = {"search_ended": reason, "budget": self.limits.budget} | ({"cut": list(cut)} if cut else {})
        self.journal.append("decision", None, decision)
        self.journal.commit()

    def _replay(self) -> None:
        """Feed the log to the strategy; its asks must come out as they were."""
        cut: list[int] = []
        for event in self.journal.events():
            match event.kind:
                case "ask":
                    proposals = self.strategy.ask(1)
                    if not proposals or list(proposals[0].vector) != event.data["vector"]:
                        raise StudyBroken(
                            f"trial {event.trial} cannot be replayed: the strategy now proposes something else; "
                            "go on with the versions that the study was started with (see `evomerge status --json`)"
                        )
                    self._opened(proposals[0])
                case "tell" if event.trial is not None:
                    self._tell(event.trial, event.data, replayed=True)
                case "decision" if "search_ended" in event.data:
                    reopened = self.limits.more_than(event.data["search_ended"], event.data["budget"])
                    self._ended = None if reopened else event.data["search_ended"]
                    cut = [] if reopened else event.data.get("cut", [])
                case _:
                    pass
        for number in cut:  # by the last decision; one that was followed by tells has been overruled
            self._open.pop(number, None)

    async def _set_back(self) -> None:
        """Cancel what runs; its answered batches are journalled, and it is open again at the next start."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        self._running.clear()
