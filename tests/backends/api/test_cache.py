"""The cache of answers: what comes back, what is thrown out, who may rely on what, and what never stops a study."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.backends.api.cache import AnswerCache, CacheSettings, pins_of
from evomerge.backends.api.canonical import canonical, from_text, key_of, to_text
from evomerge.backends.api.held import clear, contents
from evomerge.errors import ConfigError
from evomerge.exchange import Answer, Failure, Generate, Judge, Likelihood, Message, Request, Sampling, Usage

ASKED = Generate("What is 2+2?", Sampling(max_tokens=8))
FULL = Answer(
    text="4 \N{SNOWMAN}", finish="length", usage=Usage(5, 2, 1), logprob=-0.25, usd=1e-6, seconds=0.5, model="m-1 fp_2"
)
DAY = 86400.0


@contextmanager
def cache_at(path: Path, **settings: Any) -> Iterator[AnswerCache]:
    with closing(AnswerCache(path, **settings)) as one:
        yield one


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "answers.sqlite"


def numbered(number: int, size: int = 0) -> tuple[Request, Answer]:
    return Generate(f"question {number}"), Answer(text=f"answer {number}" + "x" * size)


def test_an_answer_comes_back_whole_and_marked(path: Path) -> None:
    judged = Judge("a", ("b", "c")), Answer(likelihoods=(Likelihood(-1.5, 2), Likelihood(-2.0, 1)))
    with cache_at(path) as cache:
        assert cache.get("print", ASKED) is None
        cache.put("print", ASKED, FULL)
        cache.put("print", *judged)
    with cache_at(path) as cache:
        assert cache.get("print", ASKED) == replace(FULL, cached=True)
        assert cache.get("print", judged[0]) == replace(judged[1], cached=True)
        assert cache.get("other", ASKED) is None


OTHERS = (
    Generate("What is 2+3?", Sampling(max_tokens=8)),
    Generate((Message("user", "What is 2+2?"),), Sampling(max_tokens=8)),
    Generate("What is 2+2?", Sampling(max_tokens=9)),
    Generate("What is 2+2?", Sampling(max_tokens=8, temperature=0.5)),
    Generate("What is 2+2?", Sampling(max_tokens=8, top_p=0.5)),
    Generate("What is 2+2?", Sampling(max_tokens=8, stop=("4",))),
    Generate("What is 2+2?", Sampling(max_tokens=8, seed=0)),
    Generate("What is 2+2?", Sampling(max_tokens=8, choices=("4", "5"))),
    Generate("What is 2+2?", Sampling(max_tokens=8, schema="{}")),
    Generate("What is 2+2?", Sampling(max_tokens=8), sample=1),
    Generate("What is 2+2?", Sampling(max_tokens=8), logprobs=True),
    Judge("What is 2+2?", ()),
    Judge("What is 2+2?", ("4",)),
)


def test_whatever_differs_in_a_request_or_endpoint_is_another_entry() -> None:
    keys = [key_of("print", request) for request in (ASKED, *OTHERS)] + [key_of("other", ASKED)]
    assert len(set(keys)) == len(keys)


def test_a_key_is_the_same_in_every_process_and_never_changes() -> None:
    """Who changes this makes everybody pay again, and says so in CHANGELOG.md."""
    code = (
        "from evomerge.backends.api.canonical import key_of; from evomerge.exchange import Generate, Sampling; "
        "print(key_of('print', Generate('What is 2+2?', Sampling(max_tokens=8))))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert shown.stdout.strip() == key_of("print", ASKED)


def test_sampled_answers_are_kept_one_by_one(path: Path) -> None:
    drawn = Sampling(temperature=1.0)
    with cache_at(path) as cache:
        for sample in range(3):
            cache.put("print", Generate("dice", drawn, sample), Answer(text=str(sample)))
        found = [cache.get("print", Generate("dice", drawn, sample)) for sample in range(4)]
    assert [None if one is None else one.text for one in found] == ["0", "1", "2", None]


def test_a_failure_is_not_kept_nor_is_what_came_from_a_cache(path: Path) -> None:
    with cache_at(path) as cache:
        cache.put("print", ASKED, Answer(failure=Failure("unanswered", "nobody there")))
        cache.put("print", ASKED, replace(FULL, cached=True))
        assert cache.get("print", ASKED) is None


def test_prompts_are_kept_unless_only_hashes_are_wanted_and_nobody_else_may_read_them(path: Path) -> None:
    secret = Generate("a secret nobody knows")
    with cache_at(path, keep_prompts=False) as cache:
        cache.put("print", secret, FULL)
        assert cache.get("print", secret) is not None
    assert not any(b"secret nobody" in file.read_bytes() for file in path.parent.rglob("*") if file.is_file())
    with cache_at(path) as cache:
        cache.put("print", ASKED, FULL)
    assert b"What is 2+2?" in path.read_bytes()
    assert {file.stat().st_mode & 0o077 for file in path.parent.rglob("*") if file.is_file()} == {0}


def test_what_was_not_used_for_longest_goes_first_and_the_file_stays_within_its_bound(path: Path) -> None:
    now = [0.0]
    for number in range(150):
        now[0] += 1
        with cache_at(path, max_mb=0.1, clock=lambda: now[0]) as cache:
            cache.put("print", *numbered(number, size=1000))
            now[0] += 1
            assert cache.get("print", numbered(0)[0]) is not None
    with cache_at(path, max_mb=0.1) as cache:
        there = [number for number in range(150) if cache.get("print", numbered(number)[0]) is not None]
    assert there[0] == 0
    assert 40 < len(there) < 100
    assert there[1:] == list(range(there[1], 150))
    assert path.stat().st_size < 2 * 0.1e6


def test_what_a_running_process_uses_is_not_thrown_out_and_what_it_let_go_of_is(path: Path) -> None:
    with cache_at(path, max_mb=0.05) as using, cache_at(path, max_mb=0.05) as other:
        using.put("print", ASKED, FULL)
        said: list[str] = []
        for number in range(100):
            other.put("print", *numbered(number, size=1000))
        assert using.get("print", ASKED) is not None
        assert said == []
    with cache_at(path, max_mb=0.05) as other:
        for number in range(100, 200):
            other.put("print", *numbered(number, size=1000))
            other.close()
        assert other.get("print", ASKED) is None


def test_a_cache_full_of_what_is_in_use_keeps_no_more_and_says_so_once(path: Path) -> None:
    said: list[str] = []
    with cache_at(path, max_mb=0.02, tell=said.append) as cache:
        for number in range(50):
            cache.put("print", *numbered(number, size=1000))
        assert cache.get("print", numbered(0)[0]) is not None
        assert cache.get("print", numbered(49)[0]) is None
        assert cache.get("print", numbered(1)[0]) is not None
    assert len(said) == 1
    assert "full of what running studies use" in said[0]


KILLED = """
import sys, time
from pathlib import Path
from evomerge.backends.api.cache import AnswerCache
from evomerge.exchange import Answer, Generate

cache = AnswerCache(Path(sys.argv[1]), max_mb=0.05)
cache.put("print", Generate("mine"), Answer(text="x" * 1000))
print("ready", flush=True)
sys.stdin.read()
"""


def test_pins_of_a_killed_process_are_worth_nothing(path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    def fill(first: int) -> None:
        for number in range(first, first + 100):
            with cache_at(path, max_mb=0.05) as cache:
                cache.put("print", *numbered(number, size=1000))

    def there() -> bool:
        with closing(sqlite3.connect(path)) as db:
            return db.execute("SELECT 1 FROM answers WHERE key = ?", (key_of("print", Generate("mine")),)).fetchone() is not None

    fill(0)
    assert there()
    assert len(list(pins_of(path).iterdir())) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    fill(100)
    assert not there()
    assert list(pins_of(path).iterdir()) == []


def _work(path: str, first: int, done: Any) -> None:
    with cache_at(Path(path)) as cache:
        for number in range(first, first + 60):
            cache.put("print", *numbered(number % 90))
        found = sum(cache.get("print", numbered(number % 90)[0]) is not None for number in range(first, first + 60))
    done.put(found)


def test_two_processes_share_a_cache(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    working = [context.Process(target=_work, args=(str(path), first, done)) for first in (0, 40)]
    for process in working:
        process.start()
    assert [done.get(timeout=60) for _ in working] == [60, 60]
    for process in working:
        process.join()
    found = contents(path)
    assert found is not None
    assert sum(one.entries for one in found.endpoints) == 90
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT bytes FROM size").fetchone() == db.execute("SELECT sum(bytes) FROM answers").fetchone()


def broken(path: Path) -> None:
    path.write_bytes(b"these are no answers " * 1000)


def of_something_else(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE answers (mine TEXT)")


def of_a_later_version(path: Path) -> None:
    with cache_at(path) as cache:
        cache.put("print", ASKED, FULL)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("harm", [broken, of_something_else, of_a_later_version, a_folder])
def test_a_file_that_cannot_be_used_is_said_once_and_left_as_it_is(path: Path, harm: Any) -> None:
    path.parent.mkdir()
    harm(path)
    before = path.read_bytes() if path.is_file() else None
    said: list[str] = []
    with cache_at(path, tell=said.append) as cache:
        assert cache.get("print", ASKED) is None
        cache.put("print", ASKED, FULL)
        assert cache.get("print", ASKED) is None
    assert len(said) == 1
    assert said[0].startswith(f"{path}: the study goes on without the cache of answers")
    assert (path.read_bytes() if path.is_file() else None) == before
    if path.is_file():
        with pytest.raises(ConfigError, match="the cache of answers cannot be used"):
            contents(path)


def test_a_cache_that_breaks_while_it_is_used_is_left_out_from_then_on(path: Path) -> None:
    said: list[str] = []
    with cache_at(path, tell=said.append) as cache:
        cache.put("print", ASKED, FULL)
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("DROP TABLE answers")
        assert cache.get("print", ASKED) is None
        cache.put("print", ASKED, FULL)
    assert len(said) == 1


def test_a_full_disk_leaves_the_study_without_its_cache(path: Path) -> None:
    said: list[str] = []
    with cache_at(path, tell=said.append) as cache:
        cache.put("print", ASKED, FULL)
        assert cache._db is not None
        (pages,) = cache._db.execute("PRAGMA page_count").fetchone()
        cache._db.execute(f"PRAGMA max_page_count = {pages}")
        for number in range(100):
            cache.put("print", *numbered(number, size=1000))
    assert len(said) == 1
    assert "full" in said[0]


@pytest.mark.parametrize(
    "foreign", ["", "[]", "{}", '{"version": 1}', '{"version":1,"text":5}', "[" * 100_000, '{"version": 2}', "null"]
)
def test_an_entry_that_is_no_answer_is_none(path: Path, foreign: str) -> None:
    with cache_at(path) as cache:
        cache.put("print", ASKED, FULL)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE answers SET answer = ?", (foreign,))
    with cache_at(path) as cache:
        assert cache.get("print", ASKED) is None
        cache.put("print", ASKED, FULL)
        assert cache.get("print", ASKED) is not None
    assert from_text(foreign) is None


@given(st.text())
def test_no_text_that_is_no_answer_is_taken_for_one(text: str) -> None:
    assert from_text(text) is None


@given(
    st.builds(
        Answer,
        text=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
        finish=st.sampled_from(["stop", "length"]),
        usage=st.builds(Usage, *[st.integers(0, 10**6)] * 3),
        likelihoods=st.lists(st.builds(Likelihood, st.floats(-100, 0), st.integers(1, 9))).map(tuple),
        logprob=st.none() | st.floats(-100, 0),
        usd=st.floats(0, 1),
        seconds=st.floats(0, 1000),
    )
)
def test_every_answer_is_what_it_was_when_it_comes_back(answer: Answer) -> None:
    assert from_text(to_text(answer)) == replace(answer, cached=True)


def test_clearing_takes_what_was_asked_for(path: Path) -> None:
    known = {"one": ("small", "a.org"), "two": ("big", "a.org"), "three": ("big", "b.org")}
    now = [100 * DAY]
    with cache_at(path, known=known, clock=lambda: now[0]) as cache:
        for endpoint in known:
            for number in range(2):
                cache.put(endpoint, *numbered(number))
                now[0] += DAY
    found = contents(path, now=now[0])
    assert found is not None
    assert {(one.model, one.host, one.entries) for one in found.endpoints} == {
        ("small", "a.org", 2), ("big", "a.org", 2), ("big", "b.org", 2),
    }  # fmt: skip
    assert max(one.oldest for one in found.endpoints) == 6
    assert clear(path, "big at b.org") == 2
    assert clear(path, "a.org", older_than=5, now=now[0]) == 1
    with pytest.raises(ConfigError, match="no endpoint 'tiny' has answers here"):
        clear(path, "tiny")
    assert clear(path, "small") == 1
    assert clear(path) == 2
    assert clear(path.with_name("none")) == 0


def test_the_cache_is_where_the_job_or_the_environment_says(tmp_path: Path) -> None:
    assert CacheSettings().place(tmp_path, {"XDG_CACHE_HOME": "/c"}) == Path("/c/evomerge/answers.sqlite")
    assert CacheSettings().place(tmp_path, {}) == Path.home() / ".cache" / "evomerge" / "answers.sqlite"
    assert CacheSettings(path="here.db").place(tmp_path) == tmp_path / "here.db"
    assert CacheSettings(path="/there.db").place(tmp_path) == Path("/there.db")


def test_the_text_of_a_request_is_the_same_for_the_same_request() -> None:
    assert canonical(Generate("é", Sampling(stop=("a",)))) == canonical(Generate("é", Sampling(stop=("a",))))
