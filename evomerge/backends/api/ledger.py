"""The ledger: money and tokens that a study spends on endpoints, set aside before a request leaves and settled after.

A reservation is on disk before its request may be sent, and spent and reserved together never pass the budget. What a
killed process had under way counts as spent, and so does a request whose answer never came. One process at a time
writes (see `study.lock`); commits are made in a thread, and all who wait for one share it.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evomerge.backends.api.money import Amount, Budget, Part, amount
from evomerge.errors import BudgetSpent, StudyBroken
from evomerge.exchange import Usage

LEDGER = "ledger.sqlite"
"""Name of the file in a study's folder."""
FORMAT = 1
"""Version of the tables; a ledger of a later version is refused."""

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS endpoints (fingerprint TEXT PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempts (
    ticket INTEGER PRIMARY KEY, endpoint TEXT NOT NULL, most_tokens INTEGER NOT NULL, most_picousd INTEGER NOT NULL,
    outcome TEXT, prompt_tokens INTEGER, completion_tokens INTEGER, reasoning_tokens INTEGER,
    tokens INTEGER, picousd INTEGER
);
"""
_RESERVE = "INSERT INTO attempts (ticket, endpoint, most_tokens, most_picousd) VALUES (?, ?, ?, ?)"
_SETTLE = (
    "UPDATE attempts SET outcome = ?, prompt_tokens = ?, completion_tokens = ?, reasoning_tokens = ?, tokens = ?, "
    "picousd = ? WHERE ticket = ?"
)
_LOST = "UPDATE attempts SET outcome = 'lost', tokens = most_tokens, picousd = most_picousd WHERE outcome IS NULL"
_SPENT = "SELECT coalesce(sum(tokens), 0), coalesce(sum(picousd), 0) FROM attempts"

Statement = tuple[str, Sequence[Any]]
Durable = asyncio.Future[None]


@dataclass(slots=True, eq=False)
class _Waiting:
    """A reservation that waits for room in the budget."""

    most: Amount
    ticket: "asyncio.Future[int]"


class Ledger:
    """The ledger in a file, opened at the first use; keeps the promises of `hooks.Purse`.

    `names` are those of the job, by the endpoints' fingerprints. Raises StudyBroken where the file cannot be read or
    written: what cannot be written down is not sent.
    """

    def __init__(self, path: Path, budget: Budget | None = None, names: Mapping[str, str] | None = None) -> None:
        self.path, self.budget, self._names = path, budget or Budget(), dict(names or {})
        self._store = _Store(path)
        self._spent = self._lost = self._reserved = self._kept = Amount()
        self._next = 0
        self._held: dict[int, Amount] = {}
        self._queue: deque[_Waiting] = deque()

    @property
    def spent(self) -> Amount:
        """What was spent or may have been, over all starts of the study."""
        self._open()
        return self._spent

    @property
    def reserved(self) -> Amount:
        """What is set aside for requests under way."""
        return self._reserved

    def keep(self, kept: Amount) -> None:
        """Keep so much of the budget back from whatever is reserved from now on."""
        self._kept = kept
        self._admit()

    async def reserve(self, endpoint: str, most_tokens: tuple[int, int], most_usd: float) -> int:
        """Set aside what one attempt may cost at most, and return a ticket once that is on disk.

        Near the budget's end this waits for requests under way, which as a rule cost less than was set aside for them.
        Raises BudgetSpent where nothing is under way any more and the rest does not cover it.
        """
        self._open()
        waiting = _Waiting(amount(sum(most_tokens), most_usd), asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._admit()
        try:
            ticket = await waiting.ticket
        except asyncio.CancelledError:
            self._withdraw(waiting)
            raise
        try:
            await self._store.written(_RESERVE, (ticket, endpoint, waiting.most.tokens, waiting.most.picousd))
        except asyncio.CancelledError:
            self.settle(ticket, Usage(), 0.0)
            raise
        except StudyBroken:
            self._release(ticket)
            raise
        return ticket

    def settle(self, ticket: int, usage: Usage | None, usd: float | None) -> None:
        """Replace a reservation by what the attempt cost; what is None counts as it was set aside."""
        most = self._release(ticket)
        known = usage or Usage()
        cost = Amount(
            most.tokens if usage is None else usage.prompt_tokens + usage.completion_tokens,
            most.picousd if usd is None else amount(0, usd).picousd,
        )
        outcome = "unknown" if usage is None or usd is None else "free" if cost == Amount() else "settled"
        self._spent += cost
        counted = (known.prompt_tokens, known.completion_tokens, known.reasoning_tokens)
        self._store.write(_SETTLE, (outcome, *counted, cost.tokens, cost.picousd, ticket))
        self._admit()

    def close(self) -> None:
        """Write down what is not yet, and close the file. Calling it twice is harmless."""
        self._store.close()

    def _open(self) -> None:
        if self._store.open({"usd": self.budget.usd, "tokens": self.budget.tokens}, self._names):
            self._next, self._spent, self._lost = self._store.begun()

    def _admit(self) -> None:
        """Let those who wait have what there is room for, in their order."""
        while self._queue:
            if self._queue[0].ticket.done():  # cancelled, and not yet withdrawn
                self._queue.popleft()
                continue
            most = self._queue[0].most
            lacking = self.budget.lacks(self._spent + self._reserved + self._kept + most)
            if lacking is not None:
                if not self._held:
                    self._refuse(lacking, most)
                return
            self._next += 1
            self._held[self._next] = most
            self._reserved += most
            self._queue.popleft().ticket.set_result(self._next)

    def _refuse(self, part: Part, most: Amount) -> None:
        """Tell all who wait that nothing more can be paid."""
        parts = [f"{self._spent.said(part)} are spent"]
        if self._lost.said(part) != Amount().said(part):
            parts.append(f"of which {self._lost.said(part)} were under way when earlier starts were killed")
        if self._kept.said(part) != Amount().said(part):
            parts.append(f"{self._kept.said(part)} are kept for selection and test")
        sentence = (
            f"budget.{part}: of {self.budget.said(part)} {', '.join(parts)}, and the next request may take "
            f"{most.said(part)}; raise it and start again, nothing is lost"
        )
        while self._queue:
            if not (ticket := self._queue.popleft().ticket).done():
                ticket.set_exception(BudgetSpent(sentence, part))

    def _withdraw(self, waiting: _Waiting) -> None:
        """Take back a reservation that nobody waits for any more."""
        if waiting in self._queue:
            self._queue.remove(waiting)
        elif not waiting.ticket.cancelled() and waiting.ticket.exception() is None:
            self._release(waiting.ticket.result())
        self._admit()

    def _release(self, ticket: int) -> Amount:
        most = self._held.pop(ticket)
        self._reserved -= most
        return most


class _Store:
    """The file of a ledger, written by a thread of its own in groups."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._pending: list[Statement] = []
        self._waiting: list[Durable] = []
        self._writer: ThreadPoolExecutor | None = None
        self._writing = False
        self._broken: StudyBroken | None = None

    def open(self, budget: Mapping[str, Any], names: Mapping[str, str]) -> bool:
        """Open the file, unless it is open; return whether it was not. What was under way is lost."""
        if self._db is not None:
            return False
        try:
            self._db = _connect(self._path)
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(_LOST)
            facts = {"format": FORMAT, **budget}
            self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())
            self._db.executemany("INSERT OR REPLACE INTO endpoints VALUES (?, ?)", names.items())
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise unreadable(self._path, error) from error
        return True

    def begun(self) -> tuple[int, Amount, Amount]:
        """Return the last ticket, what was spent, and what of it was lost with killed processes."""
        assert self._db is not None
        (last,) = self._db.execute("SELECT coalesce(max(ticket), 0) FROM attempts").fetchone()
        lost = self._db.execute(f"{_SPENT} WHERE outcome = 'lost'").fetchone()
        return last, Amount(*self._db.execute(_SPENT).fetchone()), Amount(*lost)

    def write(self, statement: str, values: Sequence[Any]) -> None:
        """Write something with the next commit; nobody waits for it."""
        self._pending.append((statement, values))
        try:
            self._begin(asyncio.get_running_loop())
        except RuntimeError:  # no loop runs any more: `close` writes it
            return

    async def written(self, statement: str, values: Sequence[Any]) -> None:
        """Write something and return when it is on disk. Raises StudyBroken."""
        if self._broken is not None:
            raise self._broken
        loop = asyncio.get_running_loop()
        durable: Durable = loop.create_future()
        self._pending.append((statement, values))
        self._waiting.append(durable)
        self._begin(loop)
        await durable

    def close(self) -> None:
        """Write what is pending, and close the file."""
        if self._writer is not None:
            self._writer.shutdown()
        self._writer, self._writing = None, False
        if self._db is None:
            return
        try:
            if self._broken is None:
                self._commit(self._pending)
        finally:
            self._pending = []
            self._db.close()
            self._db = None

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the thread commit all that is pending, unless it is at work: then it goes on by itself."""
        if self._writing or not self._pending or self._broken is not None:
            return
        self._writer = self._writer or ThreadPoolExecutor(1, thread_name_prefix="ledger")
        statements, self._pending = self._pending, []
        waiting, self._waiting = self._waiting, []
        self._writing = True
        work = loop.run_in_executor(self._writer, self._commit, statements)
        work.add_done_callback(self._ended(loop, waiting))

    def _ended(self, loop: asyncio.AbstractEventLoop, waiting: Sequence[Durable]) -> "Callable[[Durable], None]":
        def ended(work: Durable) -> None:
            self._writing = False
            error = None if work.cancelled() else work.exception()
            told = list(waiting)
            if isinstance(error, StudyBroken):
                self._broken = error
                told, self._waiting = [*waiting, *self._waiting], []
            for one in told:
                if not one.done() and error is not None:
                    one.set_exception(error)
                elif not one.done():
                    one.set_result(None)
            self._begin(loop)

        return ended

    def _commit(self, statements: Sequence[Statement]) -> None:
        assert self._db is not None
        if not statements:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for statement, values in statements:
                self._db.execute(statement, values)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise StudyBroken(
                f"{self._path}: the ledger cannot be written ({error}), and nothing is sent that is not written down; "
                "see that the disk is writable and has room, and start again"
            ) from error


def unreadable(path: Path, error: sqlite3.Error) -> StudyBroken:
    """Return what to say of a ledger that cannot be read."""
    return StudyBroken(
        f"{path}: the ledger cannot be read ({error}), so that nobody knows what was spent; restore it from a copy, or "
        "remove it and lower the budget by what was"
    )


def _connect(path: Path) -> sqlite3.Connection:
    """Open or make a ledger, whose commits survive a power failure."""
    db = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.executescript(_TABLES)
    row = db.execute("SELECT value FROM facts WHERE key = 'format'").fetchone()
    if row is not None and row[0] > FORMAT:
        db.close()
        raise StudyBroken(f"{path}: written by a later version of evomerge (format {row[0]}); upgrade evomerge")
    return db
