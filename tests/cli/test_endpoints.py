"""Models behind an API on the command line: drafting, checking, trying, evaluating, and what is refused."""

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.support.endpoint import ChatServer, Reply
from tests.support.ensemble import adder, write_items, write_job

NAMES = ("fast", "smart")
SMART = "    - {endpoint: smart, weight: {low: -1, high: 1, start: 0.5}}\n"


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[dict[str, ChatServer]]:
    """Two endpoints, with a folder of one's own as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    running = {name: ChatServer(adder(name, 0.3)) for name in NAMES}
    yield running
    for server in running.values():
        server.close()


def test_a_drafted_job_passes_check_and_runs(
    servers: dict[str, ChatServer], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "canary")
    write_items(Path.cwd(), 20)
    addresses = [f"{server.url}#vendor/{name}" for name, server in servers.items()]
    done = command("init", *addresses, "--api-key-env", "KEY", "--data", "items.jsonl", "--trials", "9")
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "wrote job.yaml: 2 genes for 2 endpoints, 1 task, 9 trials\nNext: evomerge check job.yaml --try 5\n"
    )
    checked = command("check", "job.yaml")
    assert (checked.code, checked.err) == (0, "")
    assert "an ensemble of 2 endpoints, each asked every item once" in checked.out
    assert [line.split("│")[3].strip() for line in checked.out.splitlines() if line.startswith("all ")] == ["40"]
    assert not any(server.asked for server in servers.values())
    run = command("run", "job.yaml")
    assert run.code == 0
    assert "uniform vote" in run.out
    assert "Ensemble:      studies/job/merged" in run.out
    assert all(server.asked.total() == 20 for server in servers.values())
    assert {key for server in servers.values() for key in server.keys} == {"Bearer canary"}
    there = [path for path in Path.cwd().rglob("*") if path.is_file()]
    assert not any(b"canary" in path.read_bytes() for path in there)
    assert all("canary" not in text for text in (run.out, run.err, checked.out))


def test_what_was_found_can_be_evaluated_exported_and_cleaned(servers: dict[str, ChatServer], command: Command) -> None:
    write_job(Path.cwd(), servers)
    assert command("run", "job.yaml").code == 0
    evaluated = command("eval", "job.yaml", "studies/job/merged", "fast", "studies/job/merged/recipe.yaml")
    assert (evaluated.code, evaluated.err) == (0, "")
    assert "difference to studies/job/merged" in evaluated.out
    assert [line.split()[0] for line in evaluated.out.splitlines()[2:]] == [
        "studies/job/merged", "fast", "studies/job/merged/recipe.yaml",
    ]  # fmt: skip
    assert command("export", "studies/job", "out", "--trial", "1").code == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["README.md", "recipe.yaml"]
    told = json.loads(command("status", "studies/job", "--json").out)
    assert (told["phase"], told["items"]) == ("finished", 2 * 36)
    assert command("clean", "studies/job", "--all").code == 0
    assert not Path("studies/job").exists()


def test_trying_shows_what_every_endpoint_answers(servers: dict[str, ChatServer], command: Command) -> None:
    servers["smart"].answer = lambda _: Reply(400, {"error": {"message": "no sums here"}})
    write_job(Path.cwd(), servers)
    done = command("check", "job.yaml", "--try", "2")
    assert done.code == 0
    assert done.out.count("sums, asked of fast") == 2
    assert done.out.count("answer   That makes ") == 2
    assert done.out.count("400: no sums here") == 2
    assert done.out.count("score    missing") == 2


def test_check_tells_the_highest_cost_where_prices_are_given(servers: dict[str, ChatServer], command: Command) -> None:
    job = write_job(Path.cwd(), servers, items=100)
    job.write_text(job.read_text().replace("adder-smart,", "adder-smart, usd_per_mtok: [100, 1000],"))
    done = command("check", "job.yaml")
    assert done.code == 0
    costs = {line.split()[0]: line.split("│")[-1].strip() for line in done.out.splitlines() if "│" in line}
    # 100 items: 16 tokens of an answer, 16 for a message's frame, and 4 to 8 bytes of a prompt
    assert 100 * (16 * 1000 + (16 + 4) * 100) / 1e6 <= float(costs["test"]) <= 100 * (16 * 1000 + (16 + 8) * 100) / 1e6
    assert float(costs["all"]) == pytest.approx(
        sum(float(costs[split]) for split in ("search", "select", "test")), abs=0.02
    )
    assert "without fast, whose prices are not given" in done.out


def test_a_key_that_is_not_set_is_asked_for_before_anything_is_sent(
    servers: dict[str, ChatServer], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAST_KEY", raising=False)
    write_job(Path.cwd(), servers, each=", api_key_env: FAST_KEY")
    for words in (["check", "job.yaml"], ["run", "job.yaml"]):
        done = command(*words)
        assert (done.code, done.out) == (78, "")
        assert "job.yaml:7: endpoints.fast.api_key_env: the environment variable FAST_KEY is not set" in done.err
    assert not any(server.asked for server in servers.values())
    assert not Path("studies").exists()


def test_an_endpoint_that_wants_a_person_ends_with_75_and_a_sentence(
    servers: dict[str, ChatServer], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAST_KEY", "canary")
    servers["smart"].answer = lambda _: Reply(401, {"error": {"message": "wrong key canary"}})
    write_job(Path.cwd(), servers, each=", api_key_env: FAST_KEY")
    done = command("run", "job.yaml")
    assert done.code == 75
    last = done.err.splitlines()[-1]
    assert last.startswith("evomerge: endpoint 'smart' (adder-smart at 127.0.0.1:")
    assert "see that FAST_KEY holds a key" in last
    assert "canary" not in done.err
    servers["smart"].answer = adder("smart", 0.3)
    assert command("run", "job.yaml").code == 0


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("endpoint: smart", "endpoint: smrat", "members[1].endpoint: unknown endpoint 'smrat'; did you mean 'smart'?"),
        (SMART, "", "endpoints.smart: no member of the recipe asks this endpoint"),
        ("combine: vote", "combine: votes", "recipe.combine: there is no combiner 'votes'; did you mean 'vote'?"),
        ("combine: vote", "combine: vote\n  weight: 1", "recipe.weight: belongs to each of the members"),
        ("fast, weight: {low: -1", "fast, wieght: {low: -1", "recipe.members[0].wieght: vote has no such parameter"),
        ("max_in_flight: 4", "max_in_fligt: 4", "unknown key 'max_in_fligt'; did you mean 'max_in_flight'?"),
        ("max_in_flight: 4", "api_key: abc", "unknown key 'api_key'; did you mean 'api_key_env'?"),
        ("score: numeric", "score: likelihood", "tasks[0].score: an endpoint tells no likelihood of a given text"),
        ("score: numeric", "score: numeric, search_by: likelihood", "tasks[0].search_by: an endpoint tells no"),
        ("splits:", "backend: {kind: local}\nsplits:", "backend: an ensemble of endpoints is held nowhere"),
        ("{low: -1, high: 1, start: 0.5}", "1", "recipe: it has no holes, so there is nothing to search"),
        ("http://", "file://", "endpoints.fast.url: 'file://"),
    ],
)  # fmt: skip
def test_a_job_that_cannot_be_names_file_and_key(
    servers: dict[str, ChatServer], old: str, new: str, sentence: str, command: Command
) -> None:
    job = write_job(Path.cwd(), servers)
    assert old in job.read_text()
    job.write_text(job.read_text().replace(old, new))
    done = command("run", "job.yaml")
    assert (done.code, done.out) == (78, "")
    assert done.err.startswith("evomerge: job.yaml:")
    assert sentence in done.err
    assert done.err.count("\n") == 1
    assert not any(server.asked for server in servers.values())


def test_a_merge_takes_no_endpoints_and_an_ensemble_no_merging(
    servers: dict[str, ChatServer], command: Command
) -> None:
    write_job(Path.cwd(), servers)
    assert command("run", "job.yaml").code == 0
    merged = command("merge", "studies/job/merged/recipe.yaml", "out")
    assert merged.code == 78
    assert "asks models for answers, and has no weights" in merged.err
    Path("merge.yaml").write_text(
        "recipe: {method: linear, models: [{model: a}]}\nendpoints: {e: {url: 'http://host', model: m}}\n"
        "tasks: [{name: sums, data: items.jsonl, prompt: '{{question}}', score: numeric}]\n"
    )
    refused = command("check", "merge.yaml")
    assert refused.code == 78
    assert "merge.yaml:2: endpoints.e: no member of the recipe asks this endpoint" in refused.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["http://host/v1#one"], "one endpoint alone leaves nothing to combine"),
        (["http://host/v1#one", "http://host/v1"], "http://host/v1: which model? Add its name, as in http://host/v1#model"),
        (["http://host/v1#one", "http://host/v1#two", "http://host/v1#one"], "this endpoint is named twice"),
        (["http://host/v1#one", "http://host/v1#two", "--data", "items.jsonl"], "items"),
        (["http://host/v1?x=1#one", "http://host/v1#two"], "more than scheme, host and path"),
        (["http://a#a", "http://b#b", "http://c#c", "--api-key-env", "A", "--api-key-env", "B"], "2 variables for 3"),
        (["http://a#a", "http://b#b", "--api-key-env", "A-B"], "the drafted job"),
    ],
)  # fmt: skip
def test_endpoints_that_cannot_be_drafted_are_said_in_one_line(
    servers: dict[str, ChatServer], words: list[str], sentence: str, command: Command
) -> None:
    write_items(Path.cwd(), 2 if words[-1] == "items.jsonl" else 20)
    data = [] if "--data" in words else ["--data", "items.jsonl"]
    done = command("init", *words, *data)
    assert (done.code, done.out) == (78, "")
    assert sentence in done.err
    assert done.err.count("\n") == 1
    assert not Path("job.yaml").exists()


def test_models_of_one_name_get_names_of_their_own_and_each_its_key(
    servers: dict[str, ChatServer], command: Command
) -> None:
    write_items(Path.cwd(), 20)
    words = [f"{server.url}#vendor/same model" for server in servers.values()]
    done = command("init", *words, "--api-key-env", "A", "--api-key-env", "B", "--data", "items.jsonl")
    assert (done.code, done.err) == (0, "")
    text = Path("job.yaml").read_text()
    assert "  same-model:\n" in text
    assert "  same-model-2:\n" in text
    assert text.index("api_key_env: A ") < text.index("same-model-2:\n") < text.index("api_key_env: B ")
