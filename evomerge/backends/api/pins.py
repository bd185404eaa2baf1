"""Pins: what a running process uses of a shared cache is not thrown out by another one.

An owner of pins holds an operating system's lock on a file of its own beside the cache. The lock is gone with the
process, however that ended, and then its pins are worth nothing: whoever needs room clears them away.
"""

import fcntl
import os
import secrets
import sqlite3
from pathlib import Path

TABLES = """
CREATE TABLE IF NOT EXISTS owners (owner TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pins (key TEXT NOT NULL, owner TEXT NOT NULL, PRIMARY KEY (key, owner)) WITHOUT ROWID;
"""


class Owner:
    """This process as an owner of pins in a cache, from the first pin to `close`."""

    def __init__(self, db: sqlite3.Connection, folder: Path) -> None:
        self._db, self._folder = db, folder
        self._name: str | None = None
        self._lock: int | None = None
        self._pinned: set[str] = set()

    def pin(self, key: str) -> None:
        """Pin an entry, inside a transaction of the caller."""
        if key in self._pinned:
            return
        if self._name is None:
            self._name = self._locked()
        self._db.execute("INSERT OR IGNORE INTO owners VALUES (?)", (self._name,))
        self._db.execute("INSERT OR IGNORE INTO pins VALUES (?, ?)", (key, self._name))
        self._pinned.add(key)

    def forget(self, keys: set[str]) -> None:
        """Forget pins that a transaction which was taken back had made."""
        self._pinned -= keys

    def close(self) -> None:
        """Let go of all pins."""
        if self._name is None or self._lock is None:
            return
        try:
            _remove(self._db, self._name)
            (self._folder / self._name).unlink(missing_ok=True)
        finally:
            os.close(self._lock)
            self._name = self._lock = None
            self._pinned.clear()

    def _locked(self) -> str:
        """Make a file that only this process holds locked, and return its name."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = secrets.token_hex(16)
        self._lock = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return name


def clear_dead(db: sqlite3.Connection, folder: Path) -> None:
    """Remove the pins of owners that are gone, inside a transaction of the caller."""
    for (name,) in db.execute("SELECT owner FROM owners").fetchall():
        if not _alive(folder / Path(name).name):
            _remove(db, name)
            (folder / Path(name).name).unlink(missing_ok=True)


def _alive(path: Path) -> bool:
    """Return whether somebody holds the lock on a file."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _remove(db: sqlite3.Connection, name: str) -> None:
    db.execute("DELETE FROM pins WHERE owner = ?", (name,))
    db.execute("DELETE FROM owners WHERE owner = ?", (name,))
