"""The journal: everything a study must not lose, in one SQLite file.

Events (asks, tells, decisions) are only ever appended and are read back in their order; scores belong to a recipe and
an item, answers to a member of an ensemble and an item, so that no answer is asked for twice. Writes are grouped and
survive a killed process at every commit; only a power failure may take the last commits with it, and then the study
goes on from the one before. One process writes at a time (see `lock`).
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.errors import StudyBroken

FORMAT = 1
"""Version of the tables; a journal of a later version is refused, one of an earlier version is read."""

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY, kind TEXT NOT NULL, trial INTEGER, data TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS scores (
    recipe TEXT NOT NULL, task TEXT NOT NULL, split TEXT NOT NULL, item TEXT NOT NULL, score REAL, answer TEXT,
    PRIMARY KEY (recipe, task, split, item)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
    member TEXT NOT NULL, task TEXT NOT NULL, split TEXT NOT NULL, item TEXT NOT NULL,
    text TEXT NOT NULL, finish TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    PRIMARY KEY (member, task, split, item)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the log. `kind` is ask, tell or decision; `trial` is None for decisions about the whole study."""

    number: int
    kind: str
    trial: int | None
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ItemScore:
    """What one recipe's answer to one item was worth; `score` is None where there was no answer."""

    item: str
    score: float | None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class ItemAnswer:
    """What one member of an ensemble answered to one item. There is none for a request that failed."""

    item: str
    text: str
    finish: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Journal:
    """An open journal. `path` None keeps it in memory; `read_only` looks at one that another process may be writing."""

    def __init__(self, path: Path | None, *, read_only: bool = False) -> None:
        self.name = "the journal" if path is None else str(path)
        self._writing = False
        place = ":memory:" if path is None else f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        try:
            self._db = sqlite3.connect(place, isolation_level=None, timeout=10, uri=True)
            if not read_only:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.executescript(_TABLES)
            version = self.fact("format")
        except sqlite3.DatabaseError as error:
            raise self._unreadable(error) from error
        if version is None:
            self.set_fact("format", FORMAT)
            self.commit()
        elif version > FORMAT:
            raise StudyBroken(
                f"{self.name}: written by a later version of evomerge (format {version}); upgrade evomerge"
            )

    def close(self) -> None:
        """Commit and close."""
        self.commit()
        self._db.close()

    def commit(self) -> None:
        """Make everything written so far survive the process."""
        if self._writing:
            self._run("COMMIT")
            self._writing = False

    def fact(self, key: str) -> Any:
        """Return a fact about the study, or None."""
        row = next(self._read("SELECT value FROM facts WHERE key = ?", (key,)), None)
        return None if row is None else json.loads(row[0])

    def set_fact(self, key: str, value: Any) -> None:
        """Write a fact about the study."""
        self._write("INSERT OR REPLACE INTO facts VALUES (?, ?)", (key, _dumps(value)))

    def append(self, kind: str, trial: int | None, data: Mapping[str, Any]) -> None:
        """Append an event."""
        self._write("INSERT INTO events (kind, trial, data) VALUES (?, ?, ?)", (kind, trial, _dumps(data)))

    def events(self, after: int = 0) -> Iterator[Event]:
        """Yield the events in their order, those numbered above `after`."""
        rows = self._read("SELECT number, kind, trial, data FROM events WHERE number > ? ORDER BY number", (after,))
        for number, kind, trial, data in rows:
            yield Event(number, kind, trial, json.loads(data))

    def put_scores(self, recipe: str, task: str, split: str, scores: Iterable[ItemScore]) -> None:
        """Keep the scores of a recipe's answers; one that is there already stays as it is."""
        rows = [(recipe, task, split, s.item, s.score, s.answer) for s in scores]
        self._begin()
        try:
            self._db.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def scores(self, recipe: str, task: str, split: str) -> dict[str, ItemScore]:
        """Return the scores kept for a recipe, by item."""
        rows = self._read(
            "SELECT item, score, answer FROM scores WHERE recipe = ? AND task = ? AND split = ?", (recipe, task, split)
        )
        return {item: ItemScore(item, score, answer) for item, score, answer in rows}

    def count_scores(self) -> int:
        """Return how many items have been scored, over all recipes."""
        return int(next(self._read("SELECT count(*) FROM scores"))[0])

    def put_answer(self, member: str, task: str, split: str, answer: ItemAnswer) -> None:
        """Keep what a member answered; an answer that is there already stays as it is."""
        row = (answer.item, answer.text, answer.finish, answer.prompt_tokens, answer.completion_tokens)
        self._write("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (member, task, split, *row))

    def answers(self, member: str, task: str, split: str) -> dict[str, ItemAnswer]:
        """Return the answers kept for a member, by item."""
        rows = self._read(
            "SELECT item, text, finish, prompt_tokens, completion_tokens FROM answers "
            "WHERE member = ? AND task = ? AND split = ?",
            (member, task, split),
        )
        return {row[0]: ItemAnswer(*row) for row in rows}

    def used(self) -> dict[str, tuple[int, int, int]]:
        """Return the number of answers, tokens read and tokens written of each member of an ensemble."""
        rows = self._read(
            "SELECT member, count(*), sum(prompt_tokens), sum(completion_tokens) FROM answers GROUP BY member"
        )
        return {member: (count, read, written) for member, count, read, written in rows}

    def count_asked(self) -> int:
        """Return how many items have been asked: of recipes that were held, and of the members of ensembles."""
        return self.count_scores() + int(next(self._read("SELECT count(*) FROM answers"))[0])

    @property
    def begun(self) -> bool:
        """True when there is something to lose: an event, a score or an answer."""
        return next(self.events(), None) is not None or self.count_asked() > 0

    def _begin(self) -> None:
        if not self._writing:
            self._run("BEGIN IMMEDIATE")
            self._writing = True

    def _write(self, statement: str, values: Sequence[Any]) -> None:
        self._begin()
        self._run(statement, values)

    def _run(self, statement: str, values: Sequence[Any] = ()) -> None:
        try:
            self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _read(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        try:
            yield from self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: sqlite3.Error) -> StudyBroken:
        return StudyBroken(f"{self.name}: the journal cannot be read ({error}); restore it from a copy")

    def _broken(self, error: sqlite3.Error) -> StudyBroken:
        hint = (
            "free some space and start again"
            if "full" in str(error)
            else "see that the disk is writable and start again"
        )
        return StudyBroken(f"{self.name}: the journal cannot be written ({error}); {hint}")


def elapsed(journal: Journal) -> float:
    """Return the seconds of work that a journal knows of, over all starts of its study."""
    told = (float(event.data.get("elapsed", 0.0)) for event in journal.events())
    return max([float(journal.fact("elapsed") or 0.0), *told])


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
