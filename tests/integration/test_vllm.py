"""A study on the real vLLM: one server for all of it, and whatever is killed, it ends as it would have."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from evomerge.backends.local import LocalBackend
from evomerge.backends.settings import LocalSettings
from evomerge.backends.vllm.watch import members
from evomerge.recipe.tree import recipe_id
from evomerge.study.evaluate import TaskEvaluator, Work
from evomerge.study.job import load_job
from evomerge.study.journal import Journal
from evomerge.study.prepare import prepare
from evomerge.study.proxy import COMPARED
from tests.support.study import TINY, Log, finish, log, start, write_job
from tests.support.vllm import vllm_python, wait_for

__all__ = ["vllm_python"]

pytestmark = pytest.mark.slow

BACKEND = "backend: {{kind: vllm, python: {python}, slots: 4, gpus: {gpus}, args: {{enforce-eager: true}}}}\n"


def vllm_job(folder: Path, python: Path, *, trials: int = 60, gpus: int = 1, adapters: bool = False) -> Path:
    job = write_job(folder, trials=trials, extra=BACKEND.format(python=python, gpus=gpus))
    if adapters:
        job.write_text(job.read_text().replace(f"{TINY}/experts/", f"{TINY}/adapters/"))
    return job


@pytest.fixture(scope="module")
def undisturbed(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(vllm_job(folder, vllm_python), folder / "study")
    return folder / "study"


def servers(study: Path) -> int:
    """Return how many servers were started in all."""
    logs = [file.read_text(errors="replace") for file in study.glob("vllm-*.log")]
    return sum(said.count("Started server process") for said in logs)


def processes(study: Path) -> dict[str, int]:
    """Return the processes of the study's servers by what they are: api_server, EngineCore, Worker."""
    found: dict[str, int] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            prints_to = (folder / "fd" / "1").readlink()
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if prints_to.parent != study:
            continue
        kind = next((kind for kind in ("EngineCore", "Worker", "api_server") if kind in words), None)
        if kind is not None:
            found[kind] = int(folder.name)
    return found


def test_sixty_whole_models_take_one_start_and_score_as_in_this_process(undisturbed: Path, tmp_path: Path) -> None:
    assert servers(undisturbed) == 1
    embedded = tmp_path / "study"
    finish(write_job(tmp_path, extra="backend: {dtype: float32, threads: 1}\n"), embedded)
    ours, theirs = log(undisturbed), log(embedded)
    assert [kind for kind, _, _ in ours.events] == [kind for kind, _, _ in theirs.events]
    assert ours.scores.keys() == theirs.scores.keys()
    for key, scores in ours.scores.items():
        for item, score in scores.items():
            assert score.score == pytest.approx(theirs.scores[key][item].score, abs=1e-3)
            assert score.answer == theirs.scores[key][item].answer


def disturbed(job: Path, study: Path, disturb: Callable[[], object], moments: random.Random) -> None:
    """Run a study, disturb it once in the middle of its search, and finish it if that ended it."""
    process = start(job, study)
    assert process.stderr is not None
    while (line := process.stderr.readline()) and not line.startswith("trial"):
        pass
    time.sleep(moments.uniform(0, 1))  # the moment is what is drawn
    group = os.getpgid(next(iter(processes(study).values())))
    victims = members(group)
    if disturb() == "us":
        process.kill()
        process.communicate()
        wait_for(victims)
        assert members(group) == []
        finish(job, study)
    else:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    assert members(group) == []


@pytest.mark.parametrize("victim", ["api_server", "Worker", "us"])
def test_whatever_is_killed_the_study_ends_as_undisturbed(
    vllm_python: Path, undisturbed: Path, tmp_path: Path, victim: str
) -> None:
    job, study = vllm_job(tmp_path, vllm_python), tmp_path / "study"
    _kill_once(job, study, victim, random.Random(victim))
    assert log(study) == log(undisturbed)
    assert not processes(study)


def _kill_once(job: Path, study: Path, victim: str, moments: random.Random) -> None:
    def disturb() -> object:
        if victim == "us":
            return victim
        os.kill(processes(study)[victim], signal.SIGKILL)
        return None

    disturbed(job, study, disturb, moments)


@pytest.mark.soak
@pytest.mark.parametrize("victim", ["api_server", "Worker", "us"])
def test_killed_ten_times_each_it_ends_as_undisturbed(
    vllm_python: Path, undisturbed: Path, tmp_path: Path, victim: str
) -> None:
    moments = random.Random(victim)
    whole: Log = log(undisturbed)
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        _kill_once(vllm_job(folder, vllm_python), folder / "study", victim, moments)
        assert log(folder / "study") == whole
        assert not processes(folder / "study")


def test_a_study_over_adapters_on_two_servers_goes_on_when_one_is_killed(vllm_python: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    finish(vllm_job(whole, vllm_python, trials=24, gpus=2, adapters=True), whole / "study")
    assert servers(whole / "study") == 2
    job, study = vllm_job(tmp_path, vllm_python, trials=24, gpus=2, adapters=True), tmp_path / "study"
    _kill_once(job, study, "Worker", random.Random(3))
    assert log(study) == log(whole / "study")


def test_whole_models_are_searched_by_adapters_that_score_as_in_this_process(vllm_python: Path, tmp_path: Path) -> None:
    job, study = vllm_job(tmp_path, vllm_python, trials=24), tmp_path / "study"
    job.write_text(job.read_text().replace("slots: 4", "slots: 4, proxy: {rank: 16}"))
    said = finish(job, study)
    assert servers(study) == 1
    assert "Rank correlation of proxy and exact scores" in said
    ready, found = prepare(load_job(job)), log(study)
    assert ready.proxy is not None
    adapters = ready.proxy.known(ready.store, study)
    recipes = [ready.space.decode(data["vector"]) for kind, _, data in found.events if kind == "ask"]
    proxied = [ready.proxy.made(recipe, adapters) for recipe in recipes]
    exact = [recipe for recipe in recipes if (recipe_id(recipe), "sort", "search") in found.scores]
    assert len({recipe_id(recipe) for recipe in exact}) == 3 + COMPARED

    async def rescored() -> None:
        backend = LocalBackend(LocalSettings(device="cpu", dtype="float32", threads=1), ready.store)
        with closing(Journal(None)) as journal:
            evaluator = TaskEvaluator(backend, ready.tasks, journal)
            for recipe in [*proxied, *exact]:
                known = recipe_id(recipe)
                for task, items in (await evaluator.evaluate(Work(recipe, known, "search"))).scores.items():
                    ours = {item: score.score for item, score in found.scores[known, task, "search"].items()}
                    assert ours == pytest.approx(items, abs=1e-3)
        await backend.close()

    asyncio.run(rescored())


def test_a_port_is_free_again(undisturbed: Path) -> None:
    said = (undisturbed / "vllm-1.log").read_text(errors="replace")
    port = int(said.partition("http://127.0.0.1:")[2].split()[0].strip(".,/"))
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def test_check_tries_items_without_leaving_anything(vllm_python: Path, tmp_path: Path) -> None:
    job = vllm_job(tmp_path, vllm_python, trials=3)
    ran = subprocess.run(
        [sys.executable, "-m", "evomerge", "check", str(job), "--try", "1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "merged from 3 models of 5.3 MB (" in ran.stdout
    assert "Traceback" not in ran.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.yaml"]
    assert not processes(tmp_path / "study")
