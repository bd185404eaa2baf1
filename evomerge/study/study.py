"""A study: one job's run, in one folder, from the first trial to the exported winner.

Baselines, search, selection, test, export: each phase reads from the journal what is already there and does the rest,
so that the same call begins a study, goes on with it, and shows it again when it is finished. Test answers are asked
for only after the winner is journalled.
"""

import asyncio
import shutil
from collections.abc import Coroutine
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from evomerge.backends.protocol import Backend
from evomerge.errors import BackendError, CandidateError, ConfigError
from evomerge.recipe.tree import Recipe, recipe_id
from evomerge.strategies.search.make import make_strategy
from evomerge.study.agreement import Agreement, Pair
from evomerge.study.backends import make_evaluator
from evomerge.study.choose import choose
from evomerge.study.coverage import check_coverage
from evomerge.study.deliver import deliver, finish
from evomerge.study.evaluate import Evaluator, Work
from evomerge.study.finalists import decide, finalists, looks, spread
from evomerge.study.fitness import Evaluated, Fitness, Scores, fitness
from evomerge.study.journal import Journal, elapsed
from evomerge.study.limits import Limits, Stop
from evomerge.study.lock import locked
from evomerge.study.loop import BACKEND_ATTEMPTS, Observer, Search
from evomerge.study.objectives import measure
from evomerge.study.precision import check_dtype
from evomerge.study.prepare import Prepared, check_unchanged
from evomerge.study.proxy import COMPARED, ProxyEvaluator
from evomerge.study.result import Contender, Outcome, rows
from evomerge.study.spending import Spending, known_to, ledger_of
from evomerge.study.tradeoff import Tradeoff, tradeoff
from evomerge.tasks.settings import Split
from evomerge.version import versions

R = TypeVar("R")


class StudyObserver(Observer[Recipe]):
    """Is told how a study goes; does nothing by itself."""

    def phase(self, name: str, items: int) -> None:
        """A phase begins in which at most `items` items are to be scored: none in the last, the export."""

    def answered(self, items: int) -> None:
        """That many more items have their scores."""

    def compared(self, name: str, split: Split, scored: Fitness | None) -> None:
        """A baseline or finalist has its scores on a split, or failed."""

    def said(self, words: str) -> None:
        """The backend says what it does, where that takes a while: a server starts, or starts again."""


class Stopped(Exception):
    """The study was stopped and can go on from here."""


@dataclass
class Study:
    """A prepared job and the folder of its study.

    `run` closes the backend; to go on with a study, make another Study in its folder. One process at a time may.
    """

    prepared: Prepared
    folder: Path
    backend: Backend
    observer: StudyObserver = field(default_factory=StudyObserver)
    stop: Stop = field(default_factory=Stop)

    async def run(self) -> Outcome:
        """Run the study to its end, or raise Stopped where somebody stopped it.

        Every weight is read once, before a study begins; nothing is written for models that cannot be used. Raises
        ConfigError for those and for a folder of other things, StudyLocked, StudyChanged and StudyBroken as their names
        say, and BackendError when the backend keeps failing.
        """
        path = self.folder / "journal.db"
        if not path.is_file():
            _check_new(self.folder)
            await asyncio.to_thread(self.prepared.check_values)  # signals are heard meanwhile
            _make(self.folder)
        with locked(self.folder), closing(Journal(path)) as journal:
            self._identify(journal)
            work = _Run(self, journal)
            try:
                typical = self.prepared.space.decode(self.prepared.space.start)
                await check_dtype(str(self.folder), typical, self.backend, journal)
                return await work.run()
            finally:
                work.keep_time()
                await self.backend.close()

    def _identify(self, journal: Journal) -> None:
        before = journal.fact("identity")
        if before is not None and journal.begun:
            check_unchanged(str(self.folder), before, self.prepared.identity)
        else:
            journal.set_fact("identity", self.prepared.identity)
            journal.set_fact("versions", versions())
        job = Path(self.prepared.job.document.file).absolute()
        journal.set_fact("job", str(job))
        journal.commit()
        if job != (self.folder / "job.yaml").absolute():
            shutil.copyfile(job, self.folder / "job.yaml")


class _Run:
    """One start of a study."""

    def __init__(self, study: Study, journal: Journal) -> None:
        self.study = study
        self.prepared = study.prepared
        self.observer = study.observer
        self.journal = journal
        self.evaluator = make_evaluator(self.prepared, study.backend, journal, study.observer.answered)
        settings = self.prepared.job.settings
        self.searcher = self._searcher(self.evaluator)
        self.spending = Spending(
            self.prepared, ledger_of(study.backend), journal,
            later=self._requests_later, further=lambda: self.evaluator.requests("search", 1),
        )  # fmt: skip
        self.limits = Limits(
            settings.search.trials, settings.budget.hours, elapsed(journal), self._reserve,
            usd=settings.budget.usd, tokens=settings.budget.tokens, unpaid=self.spending.end_of_search,
        )  # fmt: skip
        self.left_out: dict[str, str] = {}

    async def run(self) -> Outcome:
        compared = [Contender(b.name, b.kind, b.recipe, recipe_id(b.recipe)) for b in self.prepared.baselines]
        if (warning := self.spending.check(known_to(self.study.backend))) is not None:
            self.observer.said(warning)
        begun = await self._compare(compared, "search", "baselines")
        answered = {name: found.scores for name, (_, found) in begun.items()}
        check_coverage(self.prepared, answered, self.evaluator.reasons)
        if self.limits.hours is not None:
            await self._time_selection()
        self.spending.keep_for_later()
        search = await self._search()
        self.spending.keep_nothing()
        standing = finalists(search, self.prepared.job.settings.finalists)
        agreement = await self._agreement(search, standing)
        selected = await self._compare([*compared, *standing], "select", "selection")
        winner, best_single, trade = self._choose(selected, search)
        front = [] if trade is None else [one.contender for one in trade.front if one.contender != winner]
        delivered = {one.name for one in (*front, winner)}
        contenders = [c for c in compared if c.name not in delivered] + front + [winner]
        tested = await self._compare([c for c in contenders if c.name in selected], "test", "test")
        if winner.name not in tested:
            raise CandidateError(f"the winner ({winner.name}) could not be scored on the test split")
        table = rows(
            [(c, tested[c.name][1].scores) for c in contenders if c.name in tested],
            self.prepared.weights,
            best_single,
            bounded=all(task.unit("test") == "share" for task in self.prepared.tasks),
            values={name: self._values(found) for name, (_, found) in tested.items()},
        )
        merged = self.study.folder / "merged"
        outcome = Outcome(
            study=self.prepared.job.name,
            rows=table,
            winner=winner,
            best_single=best_single,
            searched=tuple(None if trial.fitness is None else trial.fitness.value for trial in search.trials),
            references={
                name: scored.value for name, (_, found) in begun.items() if (scored := self._fitness(found.scores))
            },
            left_out=self.left_out,
            looks=looks(self.journal),
            elapsed=self.limits.elapsed,
            merged=merged,
            agreement=agreement,
            tradeoff=trade,
            spent=self.spending.told(),
        )
        begins = partial(self.observer.phase, "export", 0)
        await deliver(self.journal, self.prepared, winner, merged, card=outcome.verdict, begins=begins)
        finish(self.journal, self.limits.elapsed)
        return outcome

    def keep_time(self) -> None:
        """Write down the time that was used, which no event tells where none came after it."""
        self.journal.set_fact("elapsed", round(self.limits.elapsed, 3))
        self.journal.commit()

    async def _time_selection(self) -> None:
        """Measure what an item of selection and test takes, before the search uses up the hours.

        It may take far longer than one of the search: an answer is generated where the search asks for a likelihood.
        """
        merges = [baseline.recipe for baseline in self.prepared.baselines if baseline.kind == "merge"]
        recipe = merges[-1] if merges else self.prepared.space.decode(self.prepared.space.start)
        self.observer.phase("timing", self.evaluator.items("select", 1))
        begun, before = self.limits.elapsed, self.journal.count_asked()
        with suppress(CandidateError):
            await self._or_stop(self._evaluate(Work(recipe, recipe_id(recipe), "select")))
        if asked := self.journal.count_asked() - before:
            self.journal.set_fact("seconds_an_item", (self.limits.elapsed - begun) / asked)
            self.journal.commit()

    async def _search(self) -> Search[Recipe]:
        settings = self.prepared.job.settings
        space = self.prepared.space
        self.observer.phase("search", self.evaluator.items("search", settings.search.trials))
        search = Search(
            space=space,
            strategy=make_strategy(
                settings.search, space.genes, space.start, objectives=len(settings.objectives)
            ),
            evaluator=self.searcher,
            journal=self.journal,
            limits=self.limits,
            weights=self.prepared.weights,
            identify=recipe_id,
            objectives=settings.objectives,
            coverage=settings.coverage,
            slots=self.study.backend.slots,
            order=settings.order,
            observer=self.observer,
            stop=self.study.stop,
        )
        if await search.run() == "stopped":
            raise Stopped
        if not any(trial.fitness for trial in search.trials):
            error = next((trial.error for trial in search.trials), "no trial was made")
            raise CandidateError(f"all {len(search.trials)} trials failed; the first said: {error}")
        return search

    def _searcher(self, exact: Evaluator[Recipe]) -> Evaluator[Recipe]:
        """Return who scores trials: `exact`, or the same by proxy."""
        proxy = self.prepared.proxy
        if proxy is None:
            return exact
        adapters = proxy.adapters(self.prepared.store, self.study.folder)
        return ProxyEvaluator(proxy, adapters, exact, self.observer.said, partial(self.journal.set_fact, "proxy"))

    async def _agreement(self, search: Search[Recipe], standing: list[Contender]) -> Agreement | None:
        """Score some trials exactly that were scored by proxy, and journal how well the two agree."""
        proxy = self.prepared.proxy
        if proxy is None:
            return None
        looked_at = [one for one in standing if one.trial is not None] + spread(search, standing, COMPARED)
        exact = await self._compare(looked_at, "search", "proxy")
        by_proxy = {trial.number: trial.fitness.value for trial in search.trials if trial.fitness is not None}
        stood = {one.name for one in standing}
        pairs = [
            Pair(contender.trial, by_proxy[contender.trial], found.value, name in stood)
            for name, (contender, scored) in exact.items()
            if contender.trial is not None and (found := self._fitness(scored.scores)) is not None
        ]
        agreement = Agreement(proxy.rank, self.journal.fact("proxy") or {}, tuple(pairs))
        self.journal.set_fact("agreement", agreement.to_plain())
        self.journal.commit()
        return agreement

    async def _compare(
        self, contenders: list[Contender], split: Split, phase: str
    ) -> dict[str, tuple[Contender, Evaluated]]:
        """Score contenders on a split and journal what they reached; one that cannot be is left out."""
        self.observer.phase(phase, self.evaluator.items(split, len(contenders)))
        found: dict[str, tuple[Contender, Evaluated]] = {}
        for contender in contenders:
            try:
                evaluated = await self._or_stop(self._evaluate(Work(contender.recipe, contender.recipe_id, split)))
                scored, reason = self._fitness(evaluated.scores), "none of the items of a task was answered"
                values = self._values(evaluated)
            except CandidateError as error:
                evaluated, scored, values, reason = Evaluated({}), None, {}, str(error)
            finally:
                self.keep_time()
            reached: dict[str, Any] = {"error": reason} if scored is None else {"fitness": scored.value}
            self._record(contender, split, reached | ({"objectives": values} if values else {}))
            self.observer.compared(contender.name, split, scored)
            if scored is None:
                self.left_out[contender.name] = reason
            else:
                found[contender.name] = contender, evaluated
        return found

    def _record(self, contender: Contender, split: Split, reached: dict[str, Any]) -> None:
        """Journal once what a baseline or finalist reached on a split."""
        entry = {"name": contender.name, "recipe": contender.recipe_id, "split": split} | reached
        if not any(event.kind == "compared" and dict(event.data) == entry for event in self.journal.events()):
            self.journal.append("compared", None, entry)
            self.journal.commit()

    async def _evaluate(self, work: Work[Recipe]) -> Evaluated:
        for attempt in range(BACKEND_ATTEMPTS):
            try:
                return await self.evaluator.evaluate(work)
            except BackendError:
                if attempt == BACKEND_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    async def _or_stop(self, work: Coroutine[Any, Any, R]) -> R:
        """Do some work unless somebody asks to stop first."""
        task = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self.study.stop.wait())
        try:
            await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Stopped
            return task.result()
        finally:
            stopping.cancel()
            task.cancel()
            await asyncio.gather(task, stopping, return_exceptions=True)

    def _choose(
        self, selected: dict[str, tuple[Contender, Evaluated]], search: Search[Recipe]
    ) -> tuple[Contender, str | None, Tradeoff | None]:
        """Choose the winner among merges, and the best single model, on the select split; journalled before testing.

        With several objectives the winner is the knee of the front.
        """
        settings = self.prepared.job.settings
        weights, standing = self.prepared.weights, list(selected.values())
        winner, single = choose([(one, found.scores) for one, found in standing], weights, settings.coverage)
        trade = None
        if len(settings.objectives) > 1:
            searched = [trial.values or None for trial in search.trials]
            trade = tradeoff(standing, weights, settings.coverage, settings.objectives, searched)
            winner = None if trade is None else trade.knee.contender
        if winner is None:
            raise CandidateError("no finalist could be scored on the select split, so there is no winner")
        trials, stood = len(search.trials), settings.finalists
        decide(
            self.journal, winner, single,
            trials=trials, finalists=stood, elapsed=self.limits.elapsed, tradeoff=trade,
        )  # fmt: skip
        return winner, None if single is None else single.name, trade

    def _values(self, found: Evaluated) -> dict[str, float]:
        """Return the value of each objective where there are several. Raises CandidateError where one is not known."""
        objectives, scored = self.prepared.job.settings.objectives, self._fitness(found.scores)
        if scored is None or len(objectives) == 1:
            return {}
        return measure(found, scored, self.prepared.weights, objectives)

    def _fitness(self, scores: Scores) -> Fitness | None:
        return fitness(scores, self.prepared.weights)

    def _requests_later(self) -> int:
        """Return how many requests selection and test will take."""
        later = len(self.prepared.baselines) + self.prepared.job.settings.finalists + 1
        tested = len(self.prepared.baselines) + 1
        return self.evaluator.requests("select", later) + self.evaluator.requests("test", tested)

    def _reserve(self) -> float:
        """Return the seconds that selection and test will take, from what an item of theirs has taken."""
        asked = self._requests_later()
        if self.prepared.proxy is not None:
            asked += self.evaluator.requests("search", COMPARED + self.prepared.job.settings.finalists)
        return float(self.journal.fact("seconds_an_item") or 0.0) * asked


def _check_new(folder: Path) -> None:
    """Raise ConfigError for a place that holds something else: what a study writes there could replace it."""
    if folder.exists() and (not folder.is_dir() or any(file.name != "lock" for file in folder.iterdir())):
        raise ConfigError(f"{folder}: this is no study, and it is not empty; name a new folder with --study")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: this folder cannot be made ({error.strerror}); name another with --study"
        ) from None
