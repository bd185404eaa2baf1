"""The ledger: whatever is reserved, settled, cancelled or killed, the budget holds, and nothing that left is forgotten."""

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.backends.api.ledger import Ledger
from evomerge.backends.api.money import PICO, Amount, Budget
from evomerge.backends.api.spent import read_ledger
from evomerge.errors import BudgetSpent, StudyBroken
from evomerge.exchange import Usage


@pytest.fixture
def path() -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        yield Path(folder) / "ledger.sqlite"


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        await work()

    asyncio.run(all_of_it())


@contextmanager
def ledger_at(path: Path, **budget: float) -> Iterator[Ledger]:
    with closing(Ledger(path, Budget(budget.get("usd"), int(budget["tokens"]) if "tokens" in budget else None))) as one:
        yield one


def kill(ledger: Ledger) -> None:
    """Leave a ledger as a killed process does: what the thread has not committed is gone."""
    ledger._store._pending.clear()
    ledger.close()


def test_a_reservation_is_on_disk_when_it_is_given_and_counts_until_it_is_settled(path: Path) -> None:
    async def work() -> None:
        with ledger_at(path, usd=1) as ledger:
            ticket = await ledger.reserve("fast", (10, 20), 0.25)
            there = read_ledger(path)
            assert there is not None
            assert (there.under_way.attempts, there.under_way.tokens, there.under_way.usd) == (1, 30, 0.25)
            assert there.left == (0.75, None)
            ledger.settle(ticket, Usage(4, 5, 2), 0.1)
            assert (ledger.spent, ledger.reserved) == (Amount(9, PICO // 10), Amount())
        told = read_ledger(path)
        assert told is not None
        assert (told.usd, told.tokens, told.attempts) == (0.1, 9, 1)
        assert told.settled.reasoning_tokens == 2

    run(work)


def test_what_was_under_way_when_a_process_was_killed_counts_as_spent_and_is_shown_apart(path: Path) -> None:
    async def work() -> None:
        ledger = Ledger(path, Budget(usd=1), {"print": "fast"})
        ledger.settle(await ledger.reserve("print", (1, 1), 0.3), Usage(1, 1), 0.2)
        await ledger.reserve("print", (1, 1), 0.3)
        kill(ledger)
        with ledger_at(path, usd=1) as after:
            assert after.spent.usd == pytest.approx(0.5)
            with pytest.raises(BudgetSpent, match=r"budget\.usd: of 1\.00 USD 0\.5 USD are spent, of which 0\.3 USD"):
                await after.reserve("print", (1, 1), 0.6)
        told = read_ledger(path)
        assert told is not None
        assert (told.lost.attempts, told.lost.usd, told.usd) == (1, 0.3, 0.5)
        assert told.endpoints == {"fast": 0.5}

    run(work)


def test_what_has_no_known_cost_counts_as_it_was_reserved(path: Path) -> None:
    async def work() -> None:
        with ledger_at(path) as ledger:
            ledger.settle(await ledger.reserve("a", (3, 4), 0.5), None, None)
            ledger.settle(await ledger.reserve("a", (3, 4), 0.5), Usage(1, 1), None)
            ledger.settle(await ledger.reserve("a", (3, 4), 0.5), Usage(), 0.0)
            assert ledger.spent == Amount(7 + 2, PICO)
        told = read_ledger(path)
        assert told is not None
        assert (told.unknown.attempts, told.unknown.usd, told.free) == (2, 1.0, 1)

    run(work)


def test_near_the_end_of_the_budget_a_request_waits_for_those_under_way_which_may_cost_less(path: Path) -> None:
    async def work() -> None:
        with ledger_at(path, usd=1) as ledger:
            first = await ledger.reserve("a", (1, 1), 0.7)
            second = asyncio.create_task(ledger.reserve("a", (1, 1), 0.7))
            await asyncio.sleep(0)
            assert not second.done()
            ledger.settle(first, Usage(1, 1), 0.1)
            ticket = await second
            third = asyncio.create_task(ledger.reserve("a", (1, 1), 0.7))
            await asyncio.sleep(0)
            ledger.settle(ticket, Usage(1, 1), 0.7)
            with pytest.raises(BudgetSpent) as refused:
                await third
            assert refused.value.reason == "usd"
            assert refused.value.exit_code == 75

    run(work)


def test_tokens_are_a_budget_of_their_own(path: Path) -> None:
    async def work() -> None:
        with ledger_at(path, tokens=100, usd=5) as ledger:
            ledger.settle(await ledger.reserve("a", (40, 40), 0.1), Usage(40, 40), 0.1)
            with pytest.raises(BudgetSpent, match=r"budget\.tokens: of 100 tokens 80 tokens are spent") as refused:
                await ledger.reserve("a", (10, 11), 0.1)
            assert refused.value.reason == "tokens"
            ledger.settle(await ledger.reserve("a", (10, 10), 0.1), Usage(1, 1), 0.1)

    run(work)


def test_what_is_kept_back_is_not_given_and_is_given_when_it_no_longer_is(path: Path) -> None:
    async def work() -> None:
        with ledger_at(path, usd=1) as ledger:
            await ledger.reserve("a", (1, 1), 0.1)
            ledger.keep(Amount(0, PICO // 2))
            waiting = asyncio.create_task(ledger.reserve("a", (1, 1), 0.6))
            await asyncio.sleep(0)
            assert not waiting.done()
            ledger.keep(Amount())
            await waiting

    run(work)


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(path: Path) -> None:
    async def work() -> None:
        with ledger_at(path, usd=0.5) as ledger:
            ledger.settle(await ledger.reserve("a", (1, 1), 0.5), Usage(1, 1), 0.5)
            with pytest.raises(BudgetSpent):
                await ledger.reserve("a", (1, 1), 0.1)
        with ledger_at(path, usd=0.6) as ledger:
            await ledger.reserve("a", (1, 1), 0.1)

    run(work)


def test_a_reservation_that_is_cancelled_costs_nothing_wherever_it_was(path: Path) -> None:
    async def work() -> None:
        with ledger_at(path, usd=1) as ledger:
            for turns in range(4):
                task = asyncio.create_task(ledger.reserve("a", (1, 1), 1.0))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert ledger.reserved == Amount()
            held = await ledger.reserve("a", (1, 1), 1.0)
            waiting = asyncio.create_task(ledger.reserve("a", (1, 1), 1.0))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            ledger.settle(held, Usage(), 0.0)
            await ledger.reserve("a", (1, 1), 1.0)
        told = read_ledger(path)
        assert told is not None
        assert told.usd == 0
        assert told.under_way.attempts == 1

    run(work)


def test_many_who_wait_share_commits(path: Path) -> None:
    async def work() -> None:
        with ledger_at(path) as ledger:
            commits: list[int] = []
            await ledger.reserve("a", (1, 1), 0.0)
            assert ledger._store._db is not None
            ledger._store._db.set_trace_callback(lambda words: commits.append(1) if words == "COMMIT" else None)
            await asyncio.gather(*(ledger.reserve("a", (1, 1), 0.0) for _ in range(200)))
            assert len(commits) <= 3

    run(work)


def test_a_disk_without_room_ends_the_study_before_anything_is_sent(path: Path) -> None:
    async def work() -> None:
        with ledger_at(path) as ledger:
            ledger.settle(await ledger.reserve("a", (1, 1), 0.1), Usage(1, 1), 0.1)
            assert ledger._store._db is not None
            (pages,) = ledger._store._db.execute("PRAGMA page_count").fetchone()
            ledger._store._db.execute(f"PRAGMA max_page_count = {pages}")
            with pytest.raises(StudyBroken, match=r"ledger\.sqlite: the ledger cannot be written .*full"):
                for _ in range(1000):
                    await ledger.reserve("a" * 100, (1, 1), 0.0)
            with pytest.raises(StudyBroken):
                await ledger.reserve("a", (1, 1), 0.0)

    run(work)


def test_a_ledger_that_is_none_is_refused_with_a_sentence(path: Path) -> None:
    path.write_bytes(b"something else" * 100)
    with pytest.raises(StudyBroken, match="the ledger cannot be read"):
        _ = Ledger(path).spent
    with pytest.raises(StudyBroken, match="the ledger cannot be read"):
        read_ledger(path)
    assert path.read_bytes() == b"something else" * 100


def test_a_ledger_of_a_later_version_is_refused(path: Path) -> None:
    Ledger(path).close()
    with ledger_at(path) as ledger:
        assert ledger.spent == Amount()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE facts SET value = 99 WHERE key = 'format'")
    with pytest.raises(StudyBroken, match="later version"):
        _ = Ledger(path).spent


def test_there_is_nothing_to_tell_where_nothing_was_spent(path: Path) -> None:
    assert read_ledger(path) is None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(1, 40), st.integers(0, 40)),
        st.tuples(st.just("settle"), st.floats(0, 1), st.integers(0, 3)),
        st.tuples(st.just("lose"), st.just(0), st.integers(0, 3)),
        st.tuples(st.just("cancel"), st.just(0), st.integers(0, 3)),
        st.tuples(st.just("turn"), st.just(0), st.just(0)),
        st.tuples(st.just("kill"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


class _World:
    """What a server has seen: everything that was sent may have been billed, up to what was set aside for it."""

    def __init__(self, path: Path, budget: Budget) -> None:
        self.path, self.budget = path, budget
        self.ledger = Ledger(path, budget)
        self.asking: list[tuple[asyncio.Task[int], int, int]] = []
        self.sent: list[tuple[int, int, int]] = []
        self.billed = Amount()
        self.under_way = Amount()

    def reserve(self, tokens: int, cents: int) -> None:
        task = asyncio.create_task(self.ledger.reserve("a", (tokens, 0), cents / 100))
        self.asking.append((task, tokens, cents))

    def arrived(self) -> None:
        """Send whatever has its reservation."""
        for one in [one for one in self.asking if one[0].done()]:
            self.asking.remove(one)
            task, tokens, cents = one
            if not task.cancelled() and task.exception() is None:
                self.sent.append((task.result(), tokens, cents))
                self.under_way += Amount(tokens, cents * PICO // 100)

    def settle(self, share: float, which: int, *, known: bool) -> None:
        if not self.sent:
            return
        ticket, tokens, cents = self.sent.pop(which % len(self.sent))
        self.under_way -= Amount(tokens, cents * PICO // 100)
        used = Usage(int(tokens * share), 0) if known else None
        usd = int(cents * share) / 100 if known else None
        self.billed += Amount(int(tokens * share), int(cents * share) * PICO // 100) if known else Amount(
            tokens, cents * PICO // 100
        )  # fmt: skip
        self.ledger.settle(ticket, used, usd)

    def cancel(self, which: int) -> None:
        if self.asking:
            self.asking[which % len(self.asking)][0].cancel()

    async def kill(self) -> None:
        for task, *_ in self.asking:
            task.cancel()
        await asyncio.gather(*(task for task, *_ in self.asking), return_exceptions=True)
        self.asking.clear()
        kill(self.ledger)
        self.billed += self.under_way  # the server answered, and nobody heard
        self.under_way = Amount()
        self.sent.clear()
        self.ledger = Ledger(self.path, self.budget)

    def check(self) -> None:
        assert self.budget.lacks(self.billed + self.under_way) is None
        spent, reserved = self.ledger.spent, self.ledger.reserved
        assert self.budget.lacks(spent + reserved) is None
        assert spent.tokens + reserved.tokens >= self.billed.tokens + self.under_way.tokens
        assert spent.picousd + reserved.picousd >= self.billed.picousd + self.under_way.picousd


@given(STEPS, st.integers(1, 120), st.integers(1, 120))
def test_no_interleaving_of_reserving_settling_cancelling_and_killing_passes_the_budget(
    steps: list[tuple[str, float, int]], cents: int, tokens: int
) -> None:
    async def work() -> None:
        with TemporaryDirectory() as folder:
            world = _World(Path(folder) / "ledger.sqlite", Budget(cents / 100, tokens))
            for kind, first, second in steps:
                if kind == "reserve":
                    world.reserve(int(first), second)
                elif kind in {"settle", "lose"}:
                    world.settle(first, second, known=kind == "settle")
                elif kind == "cancel":
                    world.cancel(second)
                elif kind == "kill":
                    await world.kill()
                for _ in range(random.Random(0).randint(1, 3)):
                    await asyncio.sleep(0)
                world.arrived()
                world.check()
            await world.kill()
            world.check()
            world.ledger.close()

    run(work)
