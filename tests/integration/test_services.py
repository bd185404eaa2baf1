"""Studies through merging services, from the command line: checked, searched, killed, exported and scored again."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from evomerge.backends.services.leftovers import FILE, Leftovers
from tests.support.commands import call, execute
from tests.support.refusals import CONFIGURATION, check_refusal
from tests.support.services import LlamaCppServer, LoraxServer, StandIn, VllmServer, running
from tests.support.study import TINY, start

JOB = """\
recipe:
  method: {method}
  models:
    - {{adapter: {first}, weight: {{low: -0.5, high: 1.5, start: 0.5}}}}
    - {{adapter: {second}, weight: {{low: -0.5, high: 1.5, start: 0.5}}}}
{further}
backend: {{kind: service, dialect: {dialect}, url: "{url}", requests_per_minute: null, max_in_flight: 4{settings}}}
tasks:
  - {{name: reverse, data: {tiny}/data/reverse.jsonl, prompt: "{{{{question}}}}", score: exact, max_tokens: 9}}
  - {{name: add, data: {tiny}/data/add.jsonl, prompt: "{{{{question}}}}", score: exact, max_tokens: 9}}
splits: {{search: 6, select: 6, test: 6}}
search: {{strategy: cma, trials: {trials}, seed: 3}}
selection: {{finalists: 2}}
"""
ADAPTERS = {"reverse": TINY / "adapters" / "reverse", "add": TINY / "adapters" / "add"}
SERVERS: dict[str, Callable[[], StandIn]] = {
    "lorax": lambda: LoraxServer(TINY / "base", ADAPTERS),
    "llama.cpp": lambda: LlamaCppServer(TINY / "base", ADAPTERS),
    "vllm": lambda: VllmServer(TINY / "base", ADAPTERS),
}


def write_job(
    folder: Path, server: StandIn, dialect: str, *, trials: int = 12, first: str = "reverse", second: str = "add",
    method: str = "linear", further: str = "", settings: str = "",
) -> Path:  # fmt: skip
    path = folder / "job.yaml"
    settings += ", folder: shared" if dialect == "vllm" else ""
    path.write_text(
        JOB.format(
            tiny=TINY, url=server.url, dialect=dialect, trials=trials, first=first, second=second, method=method,
            further=further, settings=settings,
        )
    )  # fmt: skip
    return path


@pytest.mark.slow
@pytest.mark.parametrize("dialect", SERVERS)
def test_a_study_through_a_service_finds_something(
    dialect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with running(SERVERS[dialect]()) as server:
        job = write_job(tmp_path, server, dialect)
        checked = call(capsys, "check", str(job))
        assert checked.code == 0, checked.err
        assert server.url.partition("//")[2] in checked.out
        ran = call(capsys, "run", str(job), "--study", "study")
        assert ran.code == 0, ran.err
        outcome = json.loads((tmp_path / "study" / "result.json").read_text())
        assert max(value for value in outcome["searched"] if value is not None) > outcome["references"]["base"]
        assert {"base", "reverse", "add", "uniform average"} <= set(outcome["references"])
        asked = len(server.asked)
        again = call(capsys, "run", str(job), "--study", "study")
        assert again.code == 0, again.err
        assert len(server.asked) - asked <= 1  # what the plan tries out
        scored = call(capsys, "eval", str(job), "study/merged", "--split", "select")
        assert scored.code == 0, scored.err
    assert not (tmp_path / "study" / FILE).exists()
    assert "adapter: reverse" in (tmp_path / "study" / "merged" / "recipe.yaml").read_text()


@pytest.mark.slow
def test_ties_through_lorax_searches_its_density(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with running(SERVERS["lorax"]()) as server:
        job = write_job(tmp_path, server, "lorax", trials=4, method="ties", further="  density: {low: 0.2, high: 1}")
        ran = call(capsys, "run", str(job), "--study", "study")
        assert ran.code == 0, ran.err
        merges = [body["parameters"]["merged_adapters"] for body in server.asked if "merged_adapters" in body["parameters"]]
    assert len({merge["density"] for merge in merges if merge["merge_strategy"] == "ties"}) >= 4


def test_a_study_killed_while_an_adapter_of_its_is_loaded_takes_it_back_when_it_goes_on(tmp_path: Path) -> None:
    study = tmp_path / "study"
    with running(SERVERS["vllm"]()) as server:
        job = write_job(tmp_path, server, "vllm", trials=2)
        undisturbed = set(server.served)
        server.hold_after(4 * 12 + 5)  # baselines first: base, two alone, one that is loaded
        process = start(job, study)
        server.wait_until_holding()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        [left] = Leftovers(study).all()
        assert left.name in server.served
        assert Path(left.folder).is_dir()
        server.hold_after(None)
        process = start(job, study)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert set(server.served) == undisturbed
    assert not (study / FILE).exists()
    assert list((tmp_path / "shared").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"first": "revers"}, "adapter", "did you mean 'reverse'?; it holds reverse, add"),
        ({"method": "ties", "further": "  density: 0.5"}, "backend", "llama.cpp has no ties for adapters"),
        ({"settings": ", api_key_env: NO_SUCH_KEY"}, "backend", "NO_SUCH_KEY is not set"),
    ],
)
def test_what_does_not_fit_is_one_sentence_before_the_start(
    changes: dict[str, str], key: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(SERVERS["llama.cpp"]()) as server:
        job = write_job(tmp_path, server, "llama.cpp", **changes)  # pyright: ignore[reportArgumentType]  # texts
        sentence = check_refusal(call(capsys, "check", str(job)), CONFIGURATION)
        assert server.asked == []
    assert key in sentence
    assert said in sentence


def test_likelihoods_are_refused_where_the_service_tells_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(SERVERS["llama.cpp"]()) as server:
        job = write_job(tmp_path, server, "llama.cpp")
        job.write_text(job.read_text().replace("score: exact,", "score: exact, search_by: likelihood,"))
        sentence = check_refusal(call(capsys, "check", str(job)), CONFIGURATION)
    assert "search_by" in sentence
    assert "no likelihood" in sentence


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kind: service, dialect: lorax", "kind: vllm", "merged by the service that holds them"),
        ("adapter: reverse", f"model: {TINY}/adapters/reverse", "adapter"),
    ],
)
def test_recipe_and_backend_are_both_of_a_service_or_neither(
    old: str, new: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(SERVERS["lorax"]()) as server:
        job = write_job(tmp_path, server, "lorax")
        text = job.read_text().replace(old, new)
        if "vllm" in new:
            text = text.replace(", requests_per_minute: null", "")
        job.write_text(text)
        assert said in check_refusal(call(capsys, "check", str(job)), CONFIGURATION)


def test_a_service_that_is_down_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    with running(SERVERS["lorax"]()) as server:
        job = write_job(tmp_path, server, "lorax")
    done = execute("run", str(job), "--study", str(tmp_path / "study"))
    assert done.code == 75, done
    assert done.err.count("\n") == 1
    assert "cannot be reached" in done.err
    assert not (tmp_path / "study").exists()
