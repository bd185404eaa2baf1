"""The answer cache: what was paid for once is not paid for again, by any study of any process on this machine.

One SQLite file, bounded in size: what was not used for longest goes first, and what a running process uses stays. Keys
are hashes of the whole request and of the endpoint's fingerprint (address, model, revision, further keys). A cache
never stops a study: where its file is broken, full, read-only or something else, that is said once and the study goes
on without it. What it holds is not trusted: an entry that is not whole is no answer.
"""

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field

from evomerge.backends.api import pins
from evomerge.backends.api.canonical import canonical, from_text, key_of, to_text
from evomerge.exchange import Answer, Request
from evomerge.recipe.settings import Settings

APPLICATION = 0x65766D63
"""What SQLite's header says of a file of ours, in `PRAGMA application_id`."""
FORMAT = 1
MEGABYTE = 10**6
_OVERHEAD = 400
"""Bytes of an entry beside its texts: its key in the table and in the index, its page's share."""
_ROOM = 0.9
"""Eviction goes on until so much of the limit is used, so that it is rare."""

_TABLES = f"""
CREATE TABLE IF NOT EXISTS endpoints (fingerprint TEXT PRIMARY KEY, model TEXT NOT NULL, host TEXT NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, endpoint TEXT NOT NULL, answer TEXT NOT NULL,
    digest TEXT NOT NULL, request TEXT, bytes INTEGER NOT NULL, made REAL NOT NULL, used REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS by_use ON answers (used);
CREATE TABLE IF NOT EXISTS size (bytes INTEGER NOT NULL);
INSERT INTO size SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM size);
CREATE TRIGGER IF NOT EXISTS more AFTER INSERT ON answers BEGIN UPDATE size SET bytes = bytes + new.bytes; END;
CREATE TRIGGER IF NOT EXISTS less AFTER DELETE ON answers BEGIN UPDATE size SET bytes = bytes - old.bytes; END;
{pins.TABLES}
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
"""
_EVICTED = """
SELECT id, bytes FROM answers WHERE NOT EXISTS (SELECT 1 FROM pins WHERE pins.key = answers.key) ORDER BY used
"""


class CacheSettings(Settings):
    """Where answers of endpoints are kept for all studies of this machine."""

    path: str | None = None
    """The file; `$XDG_CACHE_HOME/evomerge/answers.sqlite` if left out, and `~/.cache` in place of the variable."""
    max_mb: float = Field(default=1000, gt=0)
    """Megabytes that the answers may take; those that were not used for longest go first."""
    keep_prompts: bool = True
    """Whether the prompts are kept with their answers; `false` keeps hashes of them alone. Answers are kept either way."""

    def place(self, root: Path, environment: Mapping[str, str] = os.environ) -> Path:
        """Return the file; a relative `path` starts from `root`."""
        return default_place(environment) if self.path is None else root / Path(self.path).expanduser()


Cache = CacheSettings | Literal[False]


def default_place(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the file of the cache where a job does not name one."""
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evomerge" / "answers.sqlite"


class NotOurs(Exception):
    """A file that is no cache of answers, or of a later version; the message is a sentence without its name."""


class AnswerCache:
    """The cache in a file, opened at the first use; keeps the promises of `hooks.Answers`.

    `known` names model and host of each endpoint's fingerprint, for people. `tell` hears one sentence where the cache
    cannot be used.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_mb: float = 1000,
        keep_prompts: bool = True,
        known: Mapping[str, tuple[str, str]] | None = None,
        tell: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._most, self._keep_prompts = path, int(max_mb * MEGABYTE), keep_prompts
        self._known, self._tell, self._clock = dict(known or {}), tell, clock
        self._db: sqlite3.Connection | None = None
        self._owner: pins.Owner | None = None
        self._off = self._said_full = False

    def get(self, endpoint: str, request: Request) -> Answer | None:
        """Return the answer that is kept, marked `cached`, or None."""
        key = key_of(endpoint, request)
        with self._using() as db:
            if db is None:
                return None
            row = db.execute("SELECT answer, digest FROM answers WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            answer = from_text(row[0]) if row[1] == _digest(key, row[0]) else None
            with self._writing(db, key):
                if answer is None:
                    db.execute("DELETE FROM answers WHERE key = ?", (key,))
                else:
                    self._use(db, key)
            return answer
        return None

    def put(self, endpoint: str, request: Request, answer: Answer) -> None:
        """Keep an answer, where there is room for it."""
        if answer.failure is not None or answer.cached:
            return
        key, text = key_of(endpoint, request), to_text(answer)
        prompt = canonical(request) if self._keep_prompts else None
        size = len(text.encode()) + len((prompt or "").encode()) + _OVERHEAD
        with self._using() as db:
            if db is None:
                return
            with self._writing(db, key):
                if not self._make_room(db, size):
                    self._say_full()
                    return
                now = self._clock()
                row = (key, endpoint, text, _digest(key, text), prompt, size, now, now)
                db.execute("DELETE FROM answers WHERE key = ?", (key,))
                db.execute(
                    "INSERT INTO answers (key, endpoint, answer, digest, request, bytes, made, used) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    row,
                )
                self._use(db, key)

    def close(self) -> None:
        """Let go of what this process uses, and close the file. Calling it twice is harmless."""
        with self._using(opening=False) as db:
            if db is not None and self._owner is not None:
                self._owner.close()
        if self._db is not None:
            self._db.close()
        self._db = self._owner = None

    @contextmanager
    def _using(self, *, opening: bool = True) -> Generator[sqlite3.Connection | None]:
        """Give the open file, or None where there is no using it; what goes wrong meanwhile is said once."""
        if self._db is None and opening and not self._off:
            try:
                self._open()
            except (sqlite3.Error, OSError, NotOurs) as error:
                self._give_up(error)
        try:
            yield None if self._off else self._db
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def _open(self) -> None:
        db = connect(self._path)
        try:
            named = [(one, *words) for one, words in self._known.items()]
            db.executemany("INSERT OR REPLACE INTO endpoints VALUES (?, ?, ?)", named)
        except sqlite3.Error:
            db.close()
            raise
        self._db, self._owner = db, pins.Owner(db, pins_of(self._path))

    def _give_up(self, error: Exception) -> None:
        """Go on without the cache, and say so, unless another process was only writing for too long."""
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            return
        self._off = True
        self._tell(f"{self._path}: the study goes on without the cache of answers, which cannot be used ({error})")

    @contextmanager
    def _writing(self, db: sqlite3.Connection, key: str) -> Generator[None]:
        """Make one transaction of what is written; it survives this process, not a power failure."""
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            if self._owner is not None:
                self._owner.forget({key})
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _use(self, db: sqlite3.Connection, key: str) -> None:
        db.execute("UPDATE answers SET used = ? WHERE key = ?", (self._clock(), key))
        if self._owner is not None:
            self._owner.pin(key)

    def _make_room(self, db: sqlite3.Connection, size: int) -> bool:
        """Throw out what was not used for longest until an entry fits; return whether it does."""
        (there,) = db.execute("SELECT bytes FROM size").fetchone()
        if there + size <= self._most:
            return True
        pins.clear_dead(db, pins_of(self._path))
        wanted = min(int(self._most * _ROOM), self._most - size)
        out: list[tuple[int]] = []
        for number, bytes_ in db.execute(_EVICTED):
            if there <= wanted:
                break
            out.append((number,))
            there -= bytes_
        db.executemany("DELETE FROM answers WHERE id = ?", out)
        return there + size <= self._most

    def _say_full(self) -> None:
        if not self._said_full:
            self._said_full = True
            self._tell(
                f"{self._path}: the cache of answers is full of what running studies use; further answers are not kept "
                "in it (raise cache.max_mb)"
            )


def connect(path: Path, *, existing: bool = False) -> sqlite3.Connection:
    """Open a cache, or make one unless it must be an `existing` one.

    Only the user can read it. Raises NotOurs for other files, sqlite3.Error and OSError.
    """
    if not existing:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, isolation_level=None, timeout=5)
    try:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        empty = db.execute("SELECT 1 FROM sqlite_master").fetchone() is None
        if not empty and application != APPLICATION:
            raise NotOurs("it is a database of something else; name another file with cache.path")
        if version > FORMAT:
            raise NotOurs("it was written by a later version of evomerge")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        if empty:
            db.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
    except BaseException:
        db.close()
        raise
    return db


def pins_of(path: Path) -> Path:
    """Return the folder of the files that owners of pins hold locked."""
    return path.with_name(f"{path.name}.pins")


def _digest(key: str, text: str) -> str:
    return hashlib.sha256(f"{key}{text}".encode()).hexdigest()[:32]
