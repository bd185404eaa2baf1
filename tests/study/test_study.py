"""A study from end to end, on real small models in this process."""

import asyncio
import shutil
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from evomerge.backends.local import LocalBackend
from evomerge.backends.protocol import Model, Placement, Unsupported
from evomerge.backends.settings import LocalSettings
from evomerge.errors import BackendError, CandidateError, ConfigError, StudyChanged
from evomerge.exchange import Answer, Failure, Generate, Request
from evomerge.recipe.tree import Recipe
from evomerge.study.job import load_job
from evomerge.study.journal import Journal
from evomerge.study.limits import Stop
from evomerge.study.prepare import Prepared, prepare
from evomerge.study.reopen import reopen
from evomerge.study.result import Outcome
from evomerge.study.status import read_status
from evomerge.study.study import Stopped, Study, StudyObserver
from evomerge.tasks.settings import Split
from evomerge.tasks.task import Task
from tests.support.commands import JOB, write_family


def embedded(ready: Prepared) -> LocalBackend:
    settings = ready.job.settings.backend
    assert isinstance(settings, LocalSettings)
    return LocalBackend(settings, ready.store)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_family(tmp_path_factory.mktemp("family"))


def prepared(family: Path, *, changes: Sequence[tuple[str, str]] = ()) -> Prepared:
    text = JOB
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = family / "changed.yaml"
    path.write_text(text, encoding="utf-8")
    return prepare(load_job(path))


@dataclass
class Watched:
    """The real backend, and a look over its shoulder: what the journal held when each prompt was asked."""

    inner: LocalBackend
    journal: Path
    winner_known: dict[str, set[bool]] = field(default_factory=dict[str, set[bool]])
    asked: int = 0
    fails: int = 0
    silent: frozenset[str] = frozenset()

    @property
    def slots(self) -> int:
        return self.inner.slots

    @property
    def batch_size(self) -> int | None:
        return 3

    def plan(self, recipe: Recipe) -> Placement | Unsupported:
        return self.inner.plan(recipe)

    @asynccontextmanager
    async def hold(self, recipe: Recipe) -> AsyncGenerator[Model]:
        async with self.inner.hold(recipe) as model:
            yield WatchedModel(self, model)

    async def close(self) -> None:
        await self.inner.close()


@dataclass
class WatchedModel:
    watched: Watched
    inner: Model

    async def answer(self, requests: Sequence[Request]) -> AsyncIterator[tuple[int, Answer]]:
        if self.watched.fails:
            self.watched.fails -= 1
            raise BackendError("the backend failed on purpose")
        self.watched.asked += len(requests)
        with closing(Journal(self.watched.journal, read_only=True)) as journal:
            known = any("winner" in event.data for event in journal.events())
        for request in requests:
            self.watched.winner_known.setdefault(str(request.prompt), set()).add(known)
        async for index, answer in self.inner.answer(requests):
            if str(requests[index].prompt) in self.watched.silent:
                yield index, Answer(failure=Failure("silent", "no answer on purpose"))
            else:
                yield index, answer


def run(ready: Prepared, folder: Path, *, fails: int = 0) -> tuple[Outcome, Watched]:
    watched = Watched(embedded(ready), folder / "journal.db", fails=fails)
    return asyncio.run(Study(ready, folder, watched).run()), watched


def prompts(task: Task, split: Split) -> set[str]:
    requests = [task.request(item, split) for item in task.items(split)]
    return {str(request.prompt) for request in requests}


def test_test_items_are_asked_only_after_the_winner_is_journalled(family: Path, tmp_path: Path) -> None:
    ready = prepared(family)
    _, watched = run(ready, tmp_path / "study")
    tested = {prompt for task in ready.tasks for prompt in prompts(task, "test")}
    earlier: tuple[Split, ...] = ("search", "select")
    others = {prompt for task in ready.tasks for split in earlier for prompt in prompts(task, split)}
    assert {known for prompt in tested for known in watched.winner_known[prompt]} == {True}
    assert {known for prompt in others for known in watched.winner_known[prompt]} == {False}


def test_the_table_compares_every_baseline_and_the_winner(family: Path, tmp_path: Path) -> None:
    outcome, _ = run(prepared(family), tmp_path / "study")
    names = [row.name for row in outcome.rows]
    assert {"base", "one", "two"} < set(names)
    assert len(names) == 6 or outcome.winner.kind == "merge"
    assert names[-1] == outcome.winner.name
    assert outcome.best_single in {"base", "one", "two"}
    differences = {row.name: row.difference for row in outcome.rows}
    assert differences[outcome.best_single] is None
    assert all(value is not None for name, value in differences.items() if name != outcome.best_single)
    assert outcome.verdict.startswith(("The winner", "The search does not pay"))
    assert (outcome.merged / "model.safetensors").is_file()


def test_a_repeated_recipe_reuses_its_scores_and_still_counts(family: Path, tmp_path: Path) -> None:
    choices = ("weight: {low: 0, high: 1}", "weight: {choices: [0.5]}")
    ready = prepared(family, changes=[choices, ("trials: 3", "trials: 5")])
    outcome, watched = run(ready, tmp_path / "study")
    assert len(outcome.searched) == 5
    assert len(set(outcome.searched)) == 1
    recipes = len(ready.baselines) + 1
    once = recipes * (ready.items("search") + ready.items("select")) + len(outcome.rows) * ready.items("test")
    assert watched.asked == once


def test_a_finished_study_asks_nothing_more_and_more_trials_go_on_with_it(family: Path, tmp_path: Path) -> None:
    first, _ = run(prepared(family), tmp_path / "study")
    again, watched = run(prepared(family), tmp_path / "study")
    assert watched.asked == 0
    assert again.rows == first.rows
    more, watched = run(prepared(family, changes=[("trials: 3", "trials: 6")]), tmp_path / "study")
    assert more.searched[:3] == first.searched
    assert len(more.searched) == 6
    whole, _ = run(prepared(family, changes=[("trials: 3", "trials: 6")]), tmp_path / "other")
    assert more.searched == whole.searched
    assert more.winner == whole.winner


def test_a_backend_that_fails_now_and_then_changes_nothing(family: Path, tmp_path: Path) -> None:
    steady, _ = run(prepared(family), tmp_path / "steady")
    shaken, watched = run(prepared(family), tmp_path / "shaken", fails=2)
    assert watched.fails == 0
    assert shaken.rows == steady.rows
    assert shaken.searched == steady.searched


def test_a_backend_that_keeps_failing_ends_the_start_not_the_study(family: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="on purpose"):
        run(prepared(family), tmp_path / "study", fails=100)
    outcome, _ = run(prepared(family), tmp_path / "study")
    assert len(outcome.searched) == 3


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("high: 1}}\n    - {model: models/two", "high: 2}}\n    - {model: models/two", "recipe"),
        ("seed: 1", "seed: 2", "search"),
        ("score: contains", "score: exact", "tasks"),
        ("search: 4", "search: 5", "tasks"),
    ],
)
def test_a_job_that_means_another_study_is_refused(
    old: str, new: str, named: str, family: Path, tmp_path: Path
) -> None:
    run(prepared(family), tmp_path / "study")
    with pytest.raises(StudyChanged, match=rf"{named}.*changed since this study was started"):
        run(prepared(family, changes=[(old, new)]), tmp_path / "study")


def test_budget_batch_and_finalists_may_change(family: Path, tmp_path: Path) -> None:
    run(prepared(family), tmp_path / "study")
    changes = [
        ("finalists: 2", "finalists: 3"),
        ("selection:", "backend: {batch_size: 2}\nbudget: {hours: 2}\nselection:"),
    ]
    outcome, _ = run(prepared(family, changes=changes), tmp_path / "study")
    assert len(outcome.searched) == 3


def test_more_finalists_may_name_another_winner_and_then_fewer_the_first_again(family: Path, tmp_path: Path) -> None:
    few = [("trials: 3", "trials: 12"), ("finalists: 2", "finalists: 1")]
    many = [("trials: 3", "trials: 12"), ("finalists: 2", "finalists: 12")]
    first, _ = run(prepared(family, changes=few), tmp_path / "study")
    run(prepared(family, changes=many), tmp_path / "study")
    with closing(Journal(tmp_path / "study" / "journal.db")) as journal:
        asked = [event.data["finalists"] for event in journal.events() if "winner" in event.data]
    assert asked == [1, 12]
    again, _ = run(prepared(family, changes=few), tmp_path / "study")
    assert again.winner == first.winner
    assert again.rows == first.rows


def test_a_study_whose_winner_stays_the_same_is_finished_again(family: Path, tmp_path: Path) -> None:
    only = ("weight: {low: 0, high: 1}", "weight: {choices: [0.5]}")
    first, _ = run(prepared(family, changes=[only]), tmp_path / "study")
    again, _ = run(prepared(family, changes=[only, ("trials: 3", "trials: 5")]), tmp_path / "study")
    assert again.winner.recipe_id == first.winner.recipe_id
    status = read_status(tmp_path / "study")
    assert (status.phase, status.trials) == ("finished", 5)


def test_an_export_that_was_cut_off_is_made_again_and_leaves_nothing(family: Path, tmp_path: Path) -> None:
    outcome, _ = run(prepared(family), tmp_path / "study")
    whole = (outcome.merged / "model.safetensors").read_bytes()
    (outcome.merged / "model.safetensors").write_bytes(b"of another recipe")
    with closing(Journal(tmp_path / "study" / "journal.db")) as journal:
        journal.set_fact("exported", None)
    (tmp_path / "study" / ".merged.0a1b2c3d.partial").mkdir()
    run(prepared(family), tmp_path / "study")
    assert (outcome.merged / "model.safetensors").read_bytes() == whole
    assert not list((tmp_path / "study").glob(".merged*"))


def test_signals_are_heard_while_weights_are_read_and_written(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a signal does is done by the loop, which must not be the one that reads or writes."""
    heard: list[bool] = []

    def blocking(*_: object, **__: object) -> None:
        signal_arrived = threading.Event()
        loop.call_soon_threadsafe(signal_arrived.set)
        heard.append(signal_arrived.wait(timeout=20))

    async def study() -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        await Study(ready, tmp_path / "study", embedded(ready)).run()

    loop = asyncio.new_event_loop()
    loop.close()
    ready = prepared(family)
    monkeypatch.setattr(Prepared, "check_values", blocking)
    monkeypatch.setattr(Prepared, "export", blocking)
    asyncio.run(study())
    assert heard == [True, True]


def test_the_writing_of_the_model_is_told_where_there_is_something_to_write(family: Path, tmp_path: Path) -> None:
    class Phases(StudyObserver):
        def phase(self, name: str, items: int) -> None:
            told.append((name, items))

    def run_again() -> Path:
        ready = prepared(family)
        backend = embedded(ready)
        return asyncio.run(Study(ready, tmp_path / "study", backend, Phases()).run()).merged

    told: list[tuple[str, int]] = []
    merged = run_again()
    assert [name for name, _ in told] == ["baselines", "search", "selection", "test", "export"]
    assert told[-1] == ("export", 0)
    told.clear()
    run_again()
    assert ("export", 0) not in told
    shutil.rmtree(merged)
    run_again()
    assert told[-1] == ("export", 0)


def test_scores_of_two_dtypes_do_not_mix(family: Path, tmp_path: Path) -> None:
    def computing_in(dtype: str, trials: int) -> Watched:
        changes = [("selection:", f"backend: {{dtype: {dtype}}}\nselection:"), ("trials: 3", f"trials: {trials}")]
        return run(prepared(family, changes=changes), tmp_path / "study")[1]

    def everything() -> list[object]:
        with closing(Journal(tmp_path / "study" / "journal.db", read_only=True)) as journal:
            return [journal.count_scores(), *journal.events()]

    computing_in("auto", 3)
    before = everything()
    with pytest.raises(StudyChanged, match=r"in float32, .* in bfloat16, .*write `dtype: float32` under backend"):
        computing_in("bfloat16", 5)
    assert everything() == before
    assert computing_in("float32", 5).asked > 0  # which is what auto means here


def test_a_finished_study_writes_no_more_events(family: Path, tmp_path: Path) -> None:
    def events() -> int:
        with closing(Journal(tmp_path / "study" / "journal.db", read_only=True)) as journal:
            return len(list(journal.events()))

    outcome, _ = run(prepared(family), tmp_path / "study")
    before = events()
    run(prepared(family), tmp_path / "study")
    shutil.rmtree(outcome.merged)
    run(prepared(family), tmp_path / "study")
    assert events() == before


def test_a_job_that_was_moved_is_found_where_the_study_last_went_on(family: Path, tmp_path: Path) -> None:
    run(prepared(family), tmp_path / "study")
    moved = (family / "changed.yaml").rename(family / "moved.yaml")
    run(prepare(load_job(moved)), tmp_path / "study")
    assert reopen(tmp_path / "study").prepared.job.document.file == str(moved)


def test_a_winner_that_no_test_item_is_answered_by_is_said_so(family: Path, tmp_path: Path) -> None:
    ready = prepared(family)
    tested = frozenset(prompt for task in ready.tasks for prompt in prompts(task, "test"))
    silent = Watched(embedded(ready), tmp_path / "s" / "journal.db", silent=tested)
    with pytest.raises(CandidateError, match=r"the winner \(.*\) could not be scored on the test split"):
        asyncio.run(Study(ready, tmp_path / "s", silent).run())


def test_hours_are_kept_for_selection_and_test_by_what_their_own_items_take(family: Path, tmp_path: Path) -> None:
    hours = ("selection:", "budget: {hours: 2}\nselection:")
    run(prepared(family, changes=[hours]), tmp_path / "study")
    with closing(Journal(tmp_path / "study" / "journal.db")) as journal:
        assert 0 < journal.fact("seconds_an_item") < journal.fact("elapsed")
        journal.set_fact("seconds_an_item", 3600)
    run(prepared(family, changes=[hours, ("trials: 3", "trials: 6")]), tmp_path / "study")
    status = read_status(tmp_path / "study")
    assert (status.ended_by, status.trials) == ("hours", 3)


def test_the_time_of_a_start_that_was_stopped_counts(family: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError):
        run(prepared(family), tmp_path / "study", fails=100)
    status = read_status(tmp_path / "study")
    assert status.trials == 0
    assert status.seconds > 0


def test_a_study_that_is_stopped_before_it_begins_loses_nothing(family: Path, tmp_path: Path) -> None:
    async def stopped() -> None:
        ready = prepared(family)
        stop = Stop()
        stop.request("test")
        backend = embedded(ready)
        await Study(ready, tmp_path / "study", backend, stop=stop).run()

    with pytest.raises(Stopped):
        asyncio.run(stopped())
    outcome, _ = run(prepared(family), tmp_path / "study")
    assert len(outcome.searched) == 3


def test_a_search_in_which_every_trial_fails_says_why(family: Path, tmp_path: Path) -> None:
    changes = [
        ("method: task_arithmetic", "method: linear"),
        ("weight: {low: 0, high: 1}", "weight: {choices: [0]}"),
    ]
    with pytest.raises(CandidateError, match=r"all 3 trials failed; the first said: .*"):
        run(prepared(family, changes=changes), tmp_path / "study")


def test_prompts_are_what_the_watcher_sees(family: Path) -> None:
    request = prepared(family).tasks[1].request(prepared(family).tasks[1].items("test")[0], "test")
    assert isinstance(request, Generate)
    assert str(request.prompt).startswith("say ")


def test_items_that_no_model_can_take_end_the_study_before_its_search(family: Path, tmp_path: Path) -> None:
    questions = [f"{number}+1=" for number in range(8)] + ["9" * 5000 + str(number) for number in range(8)]
    (family / "long.jsonl").write_text("\n".join(f'{{"question": "{q}", "answer": "1"}}' for q in questions))
    ready = prepared(family, changes=[("data: items.jsonl", "data: long.jsonl")])
    with pytest.raises(
        ConfigError, match=r"objective.*no baseline answered more than .* long\.jsonl:\d+ \(.*64 positions"
    ):
        run(ready, tmp_path / "study")
    with closing(Journal(tmp_path / "study" / "journal.db", read_only=True)) as journal:
        assert not [event for event in journal.events() if event.kind == "ask"]


def test_a_second_look_at_the_test_items_is_told(family: Path, tmp_path: Path) -> None:
    first, _ = run(prepared(family), tmp_path / "study")
    assert first.looks == 1
    assert "have judged" not in first.verdict
    more = [("trials: 3", "trials: 30")]
    last, _ = run(prepared(family, changes=more), tmp_path / "study")
    assert last.looks == (1 if last.winner.recipe_id == first.winner.recipe_id else 2)
    assert ("have judged 2 winners" in last.verdict) == (last.looks == 2)


def test_what_baselines_and_finalists_reached_is_in_the_journal(family: Path, tmp_path: Path) -> None:
    outcome, _ = run(prepared(family), tmp_path / "study")
    with closing(Journal(tmp_path / "study" / "journal.db", read_only=True)) as journal:
        reached = {(e.data["name"], e.data["split"]) for e in journal.events() if e.kind == "compared"}
    assert {(row.name, "test") for row in outcome.rows} <= reached
    assert {("base", "search"), ("one", "select"), ("uniform average", "search")} <= reached
    assert outcome.left_out == {}
