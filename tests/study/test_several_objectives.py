"""Studies with several objectives, against real servers with prices: the front they find, what each pick gives, and
that a study that was stopped ends as an undisturbed one."""

import asyncio
import itertools
import json
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from evomerge.backends.api.backend import ApiBackend
from evomerge.backends.api.client import Pace
from evomerge.errors import ConfigError
from evomerge.recipe.tree import Ensemble, Recipe, recipe_id
from evomerge.report.write import write_report
from evomerge.study.job import load_job
from evomerge.study.journal import Journal
from evomerge.study.limits import Stop
from evomerge.study.objectives import gains
from evomerge.study.pick import parse_pick
from evomerge.study.prepare import Prepared, prepare
from evomerge.study.reopen import reopen
from evomerge.study.result import Outcome
from evomerge.study.status import read_status
from evomerge.study.study import Stopped, Study, StudyObserver
from tests.support.endpoint import ChatServer
from tests.support.ensemble import adder, write_items

ERRORS = {"small": 0.5, "medium": 0.35, "large": 0.15, "other": 0.2}
PRICES = {"small": 1, "medium": 4, "large": 20, "other": 16}
"""US dollars for a million tokens, read or written."""
READ = 7
"""Tokens that the servers say they read of every prompt; they write one a character."""
JOB = """\
recipe:
  combine: vote
  members:
{members}
endpoints:
{endpoints}
tasks:
  - {{name: sums, data: items.jsonl, prompt: "{{{{question}}}}", score: numeric, max_tokens: 16}}
splits: {{search: 40, select: 40, test: 40}}
search: {{strategy: {strategy}, trials: {trials}, seed: 3}}
objective: [{{maximize: mean}}, {{minimize: cost}}]
"""
ITEMS = 120


def write_job(folder: Path, servers: Mapping[str, ChatServer], *, strategy: str = "grid", trials: int = 100) -> Path:
    """Write a job in which every subset of the members may vote."""
    write_items(folder, ITEMS)
    members = "\n".join(f"    - {{endpoint: {name}, weight: {{choices: [0, 1]}}}}" for name in servers)
    endpoints = "\n".join(
        f"  {name}: {{url: '{server.url}', model: adder-{name}, usd_per_mtok: [{PRICES[name]}, {PRICES[name]}]}}"
        for name, server in servers.items()
    )
    path = folder / "job.yaml"
    path.write_text(JOB.format(members=members, endpoints=endpoints, strategy=strategy, trials=trials), "utf-8")
    return path


@contextmanager
def servers() -> Generator[dict[str, ChatServer]]:
    running = {name: ChatServer(adder(name, errors)) for name, errors in ERRORS.items()}
    try:
        yield running
    finally:
        for server in running.values():
            server.close()


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


def run(job: Path, study: Path, observer: StudyObserver | None = None, stop: Stop | None = None) -> Outcome:
    ready = prepare(load_job(job))
    endpoints = ready.job.settings.endpoints
    backend = ApiBackend(endpoints, dict.fromkeys(endpoints), Pace(sleep=no_sleep))
    return asyncio.run(Study(ready, study, backend, observer or StudyObserver(), stop or Stop()).run())


def asked_by(recipe: Recipe) -> set[str]:
    """Return whose answers a vote counts."""
    assert isinstance(recipe, Ensemble)
    return {item.recipe.name for item in recipe.members if item.params.get("weight", 1) != 0}  # pyright: ignore


def true_cost(ready: Prepared, members: set[str]) -> float:
    """Return what 1,000 questions of the select split cost when these members are asked, from what the servers bill."""
    (task,) = ready.tasks
    prompts = [str(task.request(item, "select").prompt) for item in task.items("select")]
    tokens = {
        name: [READ + len(str(adder(name, ERRORS[name])(prompt))) for prompt in prompts] for name in members
    }
    return sum(PRICES[name] * sum(tokens[name]) / len(prompts) / 1e6 * 1000 for name in members)


def test_the_front_is_the_best_trade_off_there_is_and_every_pick_is_right(tmp_path: Path) -> None:
    with servers() as running:
        job = write_job(tmp_path, running)
        outcome = run(job, tmp_path / "study")
        assert all(set(server.asked.values()) == {1} for server in running.values())
    trade = outcome.tradeoff
    assert trade is not None
    ready = prepare(load_job(job))
    for one in (*trade.front, *trade.others):
        if isinstance(one.contender.recipe, Ensemble):
            assert one.values["cost"] == pytest.approx(true_cost(ready, asked_by(one.contender.recipe)), rel=1e-9)
    everyone = [*trade.front, *(one for one in trade.others if one.contender.kind in ("searched", "merge"))]
    points = {one.contender.name: gains(one.values, trade.objectives) for one in everyone}
    for one, other in itertools.product(trade.front, everyone):
        mine, theirs = points[one.contender.name], points[other.contender.name]
        assert mine == theirs or not all(y >= x for x, y in zip(mine, theirs, strict=True))
    subsets = {frozenset(asked_by(one.contender.recipe)) for one in everyone}
    assert len(subsets) == 2 ** len(ERRORS) - 1
    assert len(trade.front) > 3
    found = reopen(tmp_path / "study")
    assert recipe_id(found.pick(parse_pick("knee"))[0]) == outcome.winner.recipe_id
    assert recipe_id(found.winner()[0]) == outcome.winner.recipe_id
    for bound in (0.5, 0.7, 0.8):
        enough = [one for one in everyone if one.values["mean"] >= bound - 1e-9]
        picked, note = found.pick(parse_pick(f"cheapest:{bound}"))
        assert true_cost(ready, asked_by(picked)) == pytest.approx(min(one.values["cost"] for one in enough))
        assert f"by cheapest:{bound:g}" in note
    for bound in (0.2, 0.5, 1.0):
        cheap = [one for one in everyone if one.values["cost"] < bound]
        picked = recipe_id(found.pick(parse_pick(f"best-below:{bound}"))[0])
        values = next(one.values for one in trade.front if one.contender.recipe_id == picked)
        assert values["mean"] == max(one.values["mean"] for one in cheap)
    with pytest.raises(ConfigError, match="costs less than 0"):
        found.pick(parse_pick("best-below:0"))


def test_the_whole_front_is_tested_and_reported(tmp_path: Path) -> None:
    with servers() as running:
        outcome = run(write_job(tmp_path, running), tmp_path / "study")
    trade = outcome.tradeoff
    assert trade is not None
    tested = {row.name: row for row in outcome.rows}
    assert {one.contender.name for one in trade.front} <= set(tested)
    assert set(ERRORS) <= set(tested)
    assert all(set(row.values) == {"mean", "cost"} and row.values["mean"] == row.score.value for row in outcome.rows)
    assert outcome.winning_row.difference is not None
    written = write_report(outcome, tmp_path / "study")
    told = json.loads(written[0].read_text(encoding="utf-8"))
    assert [one["name"] for one in told["tradeoff"]["front"]] == [one.contender.name for one in trade.front]
    assert [one["name"] for one in told["tradeoff"]["front"] if one["knee"]] == [outcome.winner.name]
    status = read_status(tmp_path / "study")
    assert [(point.name, point.objectives) for point in status.front] == [
        (one.contender.name, dict(one.values)) for one in trade.front
    ]


class Interrupting(StudyObserver):
    """Stops a study once so many trials were told."""

    def __init__(self, stop: Stop, after: int) -> None:
        self.stop, self.after = stop, after

    def told(self, trial: Any, *, replayed: bool) -> None:
        self.after -= not replayed
        if self.after == 0:
            self.stop.request("enough")


def log(study: Path) -> list[tuple[str, int | None, dict[str, Any]]]:
    with closing(Journal(study / "journal.db", read_only=True)) as journal:
        return [
            (event.kind, event.trial, {key: value for key, value in event.data.items() if key != "elapsed"})
            for event in journal.events()
        ]


def test_a_study_that_was_stopped_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    with servers() as running:
        job = write_job(tmp_path, running, strategy="de", trials=80)
        steady = run(job, tmp_path / "steady")
        for after in (1, 30, 33):
            stop = Stop()
            with pytest.raises(Stopped):
                run(job, tmp_path / "shaken", Interrupting(stop, after), stop)
        shaken = run(job, tmp_path / "shaken")
        again = run(job, tmp_path / "shaken")
    assert log(tmp_path / "shaken") == log(tmp_path / "steady")
    assert shaken.tradeoff == steady.tradeoff == again.tradeoff
    assert shaken.rows == steady.rows == again.rows
