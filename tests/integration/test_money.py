"""Money, with real processes and real servers: the ledger agrees with the server, the budget holds, keys stay secret.

The servers bill like providers do: for every answer that they make, also one that never arrives.
"""

import hashlib
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.backends.api.money import PICO
from evomerge.backends.api.spent import Spent, read_ledger
from evomerge.study.status import read_status
from tests.support.commands import Done, execute
from tests.support.endpoint import Answer, ChatServer, Reply, chat
from tests.support.ensemble import adder, write_job
from tests.support.study import finish, log, start

PRICES = (100, 1000)
"""USD for a million tokens read and written."""
PRICED = f", usd_per_mtok: [{PRICES[0]}, {PRICES[1]}]"
CANARY = "sk-canary-0123456789"


class Biller:
    """Answers as a model does, fails as a server does, and writes its bill.

    With `faults`, the first attempts of a request may end in any of them; the last is always answered. Which, depends
    on the prompt alone.
    """

    def __init__(self, answer: Answer, *, faults: bool = False) -> None:
        self._answer, self._faults = answer, faults
        self._attempts: Counter[str] = Counter()
        self._change = threading.Lock()
        self.picousd = self.tokens = self.arrived = self.requests = 0

    def __call__(self, prompt: str) -> "str | Reply":
        with self._change:
            self._attempts[prompt] += 1
            self.requests += 1
            attempt = self._attempts[prompt]
        drawn = hashlib.sha256(f"{prompt} {attempt}".encode()).digest()[0] % 10
        if not self._faults or attempt > 3:
            return self._billed(prompt)
        match drawn:
            case 0:
                return Reply(429, {"error": "slow down"}, {"Retry-After": "0"})
            case 1:
                return Reply(429, {"error": "slow down"})
            case 2:
                return Reply(500, {"error": {"message": f"internal; authorization was {CANARY}"}})
            case 3:
                return Reply(503, b"no JSON")
            case 4:
                return Reply(reset=True)
            case 5:
                whole = self._billed(prompt, arrives=False)
                return Reply(body=json.dumps(whole.body).encode()[:-20], promised=20)
            case 6:
                whole = self._billed(prompt, arrives=False)
                return Reply(body=json.dumps(whole.body).encode()[:-20])
            case 7:
                return replace(self._billed(prompt, arrives=False), late=True)
            case _:
                return self._billed(prompt)

    def _billed(self, prompt: str, *, arrives: bool = True) -> Reply:
        reply = chat(str(self._answer(prompt)))
        usage = reply.body["usage"]
        with self._change:
            self.tokens += sum(usage.values())
            self.arrived += sum(usage.values()) * arrives
            self.picousd += (
                usage["prompt_tokens"] * PRICES[0] + usage["completion_tokens"] * PRICES[1]
            ) * (PICO // 10**6)
        return reply


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[dict[str, ChatServer]]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KEY", CANARY)
    running = {name: ChatServer(Biller(adder(name, 0.3))) for name in ("red", "blue")}
    yield running
    for server in running.values():
        server.close()


def bills(servers: dict[str, ChatServer]) -> list[Biller]:
    found: list[Biller] = []
    for server in servers.values():
        assert isinstance(server.answer, Biller)
        found.append(server.answer)
    return found


def spent(study: Path) -> Spent:
    found = read_ledger(study / "ledger.sqlite")
    assert found is not None
    return found


def run(job: Path, study: Path) -> Done:
    return execute("run", str(job), "--study", str(study))


def billed_usd(servers: dict[str, ChatServer]) -> float:
    return sum(bill.picousd for bill in bills(servers)) / PICO


def test_the_ledger_of_a_healthy_study_is_the_servers_bill_to_the_last_token(
    tmp_path: Path, servers: dict[str, ChatServer]
) -> None:
    job, study = write_job(tmp_path, servers, each=PRICED, extra="budget: {usd: 5}\n"), tmp_path / "study"
    shown = finish(job, study)
    told = spent(study)
    assert told.usd == pytest.approx(billed_usd(servers), abs=1e-12)
    assert told.tokens == sum(bill.tokens for bill in bills(servers))
    assert told.attempts == sum(bill.requests for bill in bills(servers)) == 2 * 36
    assert (told.unknown.attempts, told.lost.attempts, told.under_way.attempts, told.free) == (0, 0, 0, 0)
    assert f"spent: {told.usd:.2g} USD" in shown
    result = json.loads((study / "result.json").read_text())
    assert result["spent"]["usd"] == pytest.approx(told.usd)
    assert set(result["spent"]["endpoints"]) == {"red", "blue"}
    status = execute("status", str(study))
    assert f"left     {5 - told.usd:.2f} USD of 5.00 USD" in status.out


def test_with_every_fault_the_ledger_counts_what_the_server_counts_and_the_budget_holds(
    tmp_path: Path, servers: dict[str, ChatServer]
) -> None:
    for name, server in servers.items():
        server.answer = Biller(adder(name, 0.3), faults=True)
    job = write_job(tmp_path, servers, each=f"{PRICED}, timeout: 0.4", extra="budget: {usd: 20}\n")
    study = tmp_path / "study"
    shown = finish(job, study)
    told, counted = spent(study), bills(servers)
    assert told.attempts == sum(bill.requests for bill in counted)
    assert told.attempts > 2 * 36
    assert told.settled.tokens == sum(bill.arrived for bill in counted)
    assert told.usd >= billed_usd(servers) - 1e-12
    assert told.tokens >= sum(bill.tokens for bill in counted)
    assert told.usd <= 20
    assert told.unknown.attempts > 0
    assert "which may have been billed" in shown
    for name, server in servers.items():
        server.answer = Biller(adder(name, 0.3))
    healthy = finish(job, tmp_path / "healthy")
    assert log(tmp_path / "healthy") == log(study)
    assert healthy.splitlines()[:8] == shown.splitlines()[:8]


@pytest.mark.parametrize("faults", [False, True])
def test_a_budget_that_ends_in_the_middle_holds_at_the_server_and_a_larger_one_goes_on(
    tmp_path: Path, servers: dict[str, ChatServer], *, faults: bool
) -> None:
    for name, server in servers.items():
        server.answer = Biller(adder(name, 0.3), faults=faults)
    job = write_job(tmp_path, servers, each=f"{PRICED}, timeout: 0.4", extra="budget: {usd: 0.7}\n")
    study = tmp_path / "study"
    stopped = run(job, study)
    assert stopped.code == 75
    assert "budget.usd: of 0.7 USD" in stopped.err
    assert "raise it and start again, nothing is lost" in stopped.err
    assert "Traceback" not in stopped.err
    told = spent(study)
    assert billed_usd(servers) <= told.usd <= 0.7
    answered = [Counter(server.answered) for server in servers.values()]
    again = run(job, study)
    assert (again.code, spent(study).usd) == (75, told.usd)
    job.write_text(job.read_text().replace("usd: 0.7", "usd: 70"))
    assert run(job, study).code == 0
    assert billed_usd(servers) <= spent(study).usd <= 70
    if not faults:
        for server, before in zip(servers.values(), answered, strict=True):
            assert {server.asked[prompt] for prompt in before} == {1}
    undisturbed = tmp_path / "undisturbed"
    finish(job, undisturbed)
    assert [event for event in log(undisturbed).events if event[0] in {"ask", "tell"}] == [
        event for event in log(study).events if event[0] in {"ask", "tell"}
    ]


def test_tokens_are_a_budget_as_money_is_and_need_no_prices(tmp_path: Path, servers: dict[str, ChatServer]) -> None:
    job, study = write_job(tmp_path, servers, extra="budget: {tokens: 700}\n"), tmp_path / "study"
    stopped = run(job, study)
    assert stopped.code == 75
    assert "budget.tokens: of 700 tokens" in stopped.err
    assert sum(bill.tokens for bill in bills(servers)) <= 700
    job.write_text(job.read_text().replace("700", "70000"))
    assert run(job, study).code == 0


def test_what_was_under_way_when_the_process_was_killed_is_spent_and_shown_and_all_else_is_asked_once(
    tmp_path: Path, servers: dict[str, ChatServer]
) -> None:
    job, study = write_job(tmp_path, servers, each=PRICED, extra="budget: {usd: 5}\n"), tmp_path / "study"
    for server in servers.values():
        server.hold_after(7)
    process = start(job, study)
    for server in servers.values():
        server.wait_until_holding()
    while spent(study).under_way.attempts < 8:
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    asked = sum(server.asked.total() for server in servers.values())
    there = spent(study)
    assert there.attempts == asked
    assert "reserved" in execute("status", str(study)).out
    for server in servers.values():
        server.hold_after(None)
    shown = finish(job, study)
    told = spent(study)
    assert told.lost.attempts == there.under_way.attempts <= 8
    assert told.attempts == sum(server.asked.total() for server in servers.values()) <= 2 * 36 + 8
    assert told.usd >= billed_usd(servers) - 1e-12
    assert f"{told.lost.attempts} were under way at a kill" in shown
    assert read_status(study).spent == told


def test_what_one_study_has_paid_for_another_does_not_pay_for_again(
    tmp_path: Path, servers: dict[str, ChatServer]
) -> None:
    cache = f"cache: {{path: '{tmp_path}/answers.sqlite'}}\n"
    job = write_job(tmp_path, servers, each=PRICED, extra="budget: {usd: 5}\n", cache=cache)
    finish(job, tmp_path / "first")
    before = sum(server.asked.total() for server in servers.values())
    finish(job, tmp_path / "second")
    assert sum(server.asked.total() for server in servers.values()) == before == 2 * 36
    assert log(tmp_path / "first") == log(tmp_path / "second")
    assert read_ledger(tmp_path / "second" / "ledger.sqlite") in {None} or spent(tmp_path / "second").usd == 0
    checked = execute("check", str(job), "--study", str(tmp_path / "third"))
    assert "72 more requests are answered in the cache already, and cost nothing" in checked.out
    listed = execute("cache", "--path", f"{tmp_path}/answers.sqlite")
    assert "72 answers" in listed.out
    assert "adder-red at 127.0.0.1" in listed.out
    cleared = execute("cache", "clear", "--endpoint", "adder-red", "--path", f"{tmp_path}/answers.sqlite")
    assert cleared.out.startswith("removed 36 answers")


def test_a_cache_that_cannot_be_used_is_said_in_one_sentence_and_the_study_goes_on(
    tmp_path: Path, servers: dict[str, ChatServer]
) -> None:
    (tmp_path / "answers.sqlite").write_bytes(b"no cache at all" * 300)
    job = write_job(tmp_path, servers, cache="cache: {path: answers.sqlite}\n")
    done = run(job, tmp_path / "study")
    assert done.code == 0
    assert done.err.count("the study goes on without the cache of answers") == 1
    assert (tmp_path / "answers.sqlite").read_bytes() == b"no cache at all" * 300


def test_a_budget_that_cannot_pay_one_pass_is_refused_before_anything_is_asked(
    tmp_path: Path, servers: dict[str, ChatServer]
) -> None:
    job, study = write_job(tmp_path, servers, each=PRICED, extra="budget: {usd: 0.001}\n"), tmp_path / "study"
    for words in (("run", str(job), "--study", str(study)), ("check", str(job), "--study", str(study))):
        done = execute(*words)
        assert done.code == 78
        assert "budget.usd: 0.001 USD left cannot even pay the search's pass over the members" in done.err
    assert not any(server.asked for server in servers.values())


def test_a_budget_in_money_needs_every_price(tmp_path: Path, servers: dict[str, ChatServer]) -> None:
    job = write_job(tmp_path, servers, extra="budget: {usd: 5}\n")
    done = execute("check", str(job))
    assert done.code == 78
    assert "endpoints.red.usd_per_mtok: budget.usd is set, and nobody knows what adder-red at 127.0.0.1" in done.err


def test_a_key_is_in_no_file_and_in_no_word_whatever_the_server_says(
    tmp_path: Path, servers: dict[str, ChatServer]
) -> None:
    for name, server in servers.items():
        server.answer = Biller(adder(name, 0.3), faults=True)
    each = f"{PRICED}, timeout: 0.4, api_key_env: KEY"
    job = write_job(tmp_path, servers, each=each, extra="budget: {usd: 20}\n", cache="")
    done = execute("run", str(job), "--study", str(tmp_path / "study"), EVOMERGE_DEBUG="1")
    assert done.code == 0
    status = execute("status", str(tmp_path / "study"), "--json")
    listed = execute("cache")
    assert {key for server in servers.values() for key in server.keys} == {f"Bearer {CANARY}"}
    assert all(CANARY not in text for one in (done, status, listed) for text in (one.out, one.err))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "answers.sqlite" for path in files)
    assert any(path.name == "ledger.sqlite" for path in files)
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]
