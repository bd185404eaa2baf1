"""Studies of ensembles, against real servers: who is asked, when, how often, and what becomes of failures."""

import asyncio
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from evomerge.backends.api.backend import ApiBackend
from evomerge.backends.api.client import Pace
from evomerge.errors import CandidateError, ConfigError, EndpointPaused, StudyChanged
from evomerge.recipe.endpoints import asked_of
from evomerge.recipe.tree import Endpoint, Ensemble, Member, Source
from evomerge.study.ensemble import EnsembleEvaluator
from evomerge.study.evaluate import Work
from evomerge.study.job import load_job
from evomerge.study.journal import Journal
from evomerge.study.prepare import Prepared, prepare
from evomerge.study.reopen import reopen
from evomerge.study.result import Outcome
from evomerge.study.status import read_status
from evomerge.study.study import Study
from evomerge.tasks.settings import SPLITS, Split
from tests.support.endpoint import ChatServer, Reply
from tests.support.ensemble import adder, write_job

IN_FLIGHT = 4
"""Requests of each endpoint that may be under way when another one ends a start."""
NAMES = ("first", "second", "third")


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


def backend(prepared: Prepared) -> ApiBackend:
    endpoints = prepared.job.settings.endpoints
    return ApiBackend(endpoints, dict.fromkeys(endpoints), Pace(sleep=no_sleep))


def run(job: Path, study: Path) -> Outcome:
    ready = prepare(load_job(job))
    return asyncio.run(Study(ready, study, backend(ready)).run())


@contextmanager
def adders(names: Sequence[str] = NAMES, errors: float = 0.3) -> Generator[dict[str, ChatServer]]:
    servers = {name: ChatServer(adder(name, errors)) for name in names}
    try:
        yield servers
    finally:
        for server in servers.values():
            server.close()


def prompts(prepared: Prepared, split: Split) -> set[str]:
    (task,) = prepared.tasks
    return {str(task.request(item, split).prompt) for item in task.items(split)}


def test_every_member_is_asked_every_item_once_whatever_the_number_of_candidates(tmp_path: Path) -> None:
    with adders() as servers:
        job = write_job(tmp_path, servers, trials=40)
        outcome = run(job, tmp_path / "study")
        for server in servers.values():
            assert set(server.asked.values()) == {1}
            assert len(server.asked) == 36
        assert run(job, tmp_path / "study").rows == outcome.rows
        assert all(server.asked.total() == 36 for server in servers.values())
    assert read_status(tmp_path / "study").items == 3 * 36


def test_the_table_compares_the_winner_with_each_endpoint_and_the_uniform_vote(tmp_path: Path) -> None:
    with adders() as servers:
        outcome = run(write_job(tmp_path, servers, items=60), tmp_path / "study")
    names = [row.name for row in outcome.rows]
    assert names[:3] == list(NAMES)
    assert {"uniform vote", outcome.winner.name} <= set(names)
    scores = {row.name: row.score.value for row in outcome.rows}
    assert scores[outcome.winner.name] > max(scores[name] for name in NAMES)
    assert isinstance(outcome.winner.recipe, Ensemble)


def test_test_items_are_asked_only_after_the_winner_is_journalled(tmp_path: Path) -> None:
    known: dict[str, set[bool]] = {}

    def looking(prompt: str) -> str | Reply:
        with closing(Journal(tmp_path / "study" / "journal.db", read_only=True)) as journal:
            known.setdefault(prompt, set()).add(any("winner" in event.data for event in journal.events()))
        return answer(prompt)

    answer = adder("first", 0.3)
    with adders() as servers:
        servers["first"].answer = looking
        job = write_job(tmp_path, servers)
        run(job, tmp_path / "study")
        ready = prepare(load_job(job))
    assert {seen for prompt in prompts(ready, "test") for seen in known[prompt]} == {True}
    before = prompts(ready, "search") | prompts(ready, "select")
    assert {seen for prompt in before for seen in known[prompt]} == {False}


def test_a_failed_request_is_missing_never_wrong_and_asked_again_at_a_later_start(tmp_path: Path) -> None:
    with adders(errors=0) as servers:
        job = write_job(tmp_path, servers, extra="objective: {coverage: 0.5}\n")
        ready = prepare(load_job(job))
        lost = sorted(prompts(ready, "search"))[:2]
        servers["first"].answer = lambda prompt: Reply(500, {}) if prompt in lost else adder("first", 0)(prompt)
        servers["second"].answer = lambda prompt: (
            Reply(401, {}) if prompt in prompts(ready, "select") else adder("", 0)(prompt)
        )
        with pytest.raises(EndpointPaused, match="endpoint 'second'"):
            run(job, tmp_path / "study")
        assert [servers["first"].asked[prompt] for prompt in lost] == [6, 6]
        with closing(Journal(tmp_path / "study" / "journal.db", read_only=True)) as journal:
            tells = [event.data for event in journal.events() if event.kind == "tell"]
            alone = next(e.data for e in journal.events() if e.kind == "compared" and e.data["name"] == "first")
        assert all(tell["fitness"] == 1.0 for tell in tells)
        assert alone["fitness"] == 1.0
        for server in servers.values():
            server.answer = adder("", 0)
        run(job, tmp_path / "study")
        assert [servers["first"].asked[prompt] for prompt in lost] == [7, 7]
        for server in servers.values():
            assert {server.answered[prompt] for prompt in prompts(ready, "search")} == {1}
            assert sum(server.answered[prompt] - 1 for prompt in prompts(ready, "select")) <= IN_FLIGHT
        before = {name: server.asked.total() for name, server in servers.items()}
        run(job, tmp_path / "study")
        assert {name: server.asked.total() for name, server in servers.items()} == before


def test_what_was_decided_on_is_not_asked_again(tmp_path: Path) -> None:
    with adders(errors=0.3) as servers:
        job = write_job(tmp_path, servers, extra="objective: {coverage: 0.5}\n")
        ready = prepare(load_job(job))
        lost = {sorted(prompts(ready, split))[0] for split in SPLITS}
        right = servers["first"].answer
        servers["first"].answer = lambda prompt: Reply(500, {}) if prompt in lost else right(prompt)
        outcome = run(job, tmp_path / "study")
        servers["first"].answer = right
        before = servers["first"].asked.total()
        assert run(job, tmp_path / "study").rows == outcome.rows
        assert servers["first"].asked.total() == before


def test_items_that_nobody_answers_end_a_study_before_its_search_with_the_reason(tmp_path: Path) -> None:
    with adders(errors=0) as servers:
        job = write_job(tmp_path, servers)
        lost = sorted(prompts(prepare(load_job(job)), "search"))[0]
        for server in servers.values():
            server.answer = lambda prompt: Reply(400, {"error": "too long"}) if prompt == lost else adder("", 0)(prompt)
        with pytest.raises(ConfigError, match=r"objective\.coverage.*items\.jsonl:\d+ \(endpoint .* 400: too long\)"):
            run(job, tmp_path / "study")
        with closing(Journal(tmp_path / "study" / "journal.db", read_only=True)) as journal:
            assert not any(event.kind == "ask" for event in journal.events())


def test_an_endpoint_may_be_corrected_until_something_was_answered_and_not_afterwards(tmp_path: Path) -> None:
    with adders() as servers:
        job = write_job(tmp_path, servers)
        right = job.read_text()
        job.write_text(right.replace("/v1", "/v2"))
        with pytest.raises(ConfigError, match="check url and model"):
            run(job, tmp_path / "study")
        job.write_text(right)
        run(job, tmp_path / "study")
        job.write_text(right.replace("adder-second", "adder-other"))
        with pytest.raises(StudyChanged, match="recipe changed since this study was started"):
            run(job, tmp_path / "study")
        job.write_text(right.replace("max_in_flight: 4", "max_in_flight: 2, usd_per_mtok: [1, 2]"))
        run(job, tmp_path / "study")


def test_hours_are_kept_for_what_is_still_to_be_asked(tmp_path: Path) -> None:
    with adders() as servers:
        run(write_job(tmp_path, servers, extra="budget: {hours: 1}\n"), tmp_path / "study")
        assert all(set(server.asked.values()) == {1} for server in servers.values())
    with closing(Journal(tmp_path / "study" / "journal.db", read_only=True)) as journal:
        assert journal.fact("seconds_an_item") > 0


def test_a_trial_and_the_winner_can_be_found_again(tmp_path: Path) -> None:
    with adders() as servers:
        outcome = run(write_job(tmp_path, servers), tmp_path / "study")
    found = reopen(tmp_path / "study")
    assert found.winner()[0] == outcome.winner.recipe
    assert isinstance(found.trial(0)[0], Ensemble)


def test_what_is_no_ensemble_of_the_members_cannot_be_scored(tmp_path: Path) -> None:
    stranger = Ensemble("vote", (Member(Endpoint("stranger", "x")),))
    with adders() as servers, closing(Journal(None)) as journal:
        ready = prepare(load_job(write_job(tmp_path, servers)))
        asking = backend(ready)
        evaluator = EnsembleEvaluator(asking, ready.tasks, journal, asked_of(ready.template))

        async def score() -> None:
            for recipe in (Source("a"), stranger, ready.template):
                with pytest.raises(CandidateError):
                    await evaluator.evaluate(Work(recipe, "id", "search"))
            await asking.close()

        asyncio.run(score())
