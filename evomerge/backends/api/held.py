"""What a cache of answers holds, for people: its size, and entries by endpoint; and clearing it."""

import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from evomerge.backends.api import pins
from evomerge.backends.api.cache import NotOurs, connect, pins_of
from evomerge.errors import ConfigError

DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Held:
    """Entries of one endpoint: how many, their bytes, and the days since the oldest was made and any was last used."""

    endpoint: str
    model: str
    host: str
    entries: int
    bytes: int
    oldest: float
    last_used: float


@dataclass(frozen=True, slots=True)
class Contents:
    """A cache: entries by endpoint, those that running studies use, and the bytes of the file."""

    path: Path
    endpoints: tuple[Held, ...]
    pinned: int
    bytes: int


_BY_ENDPOINT = """
SELECT endpoint, coalesce(model, '?'), coalesce(host, '?'), count(*), sum(bytes), min(made), max(used)
FROM answers LEFT JOIN endpoints ON fingerprint = endpoint GROUP BY endpoint ORDER BY sum(bytes) DESC
"""
_OF = "endpoint IN (SELECT fingerprint FROM endpoints WHERE ? IN (fingerprint, model, host, model || ' at ' || host))"


def contents(path: Path, now: float | None = None) -> Contents | None:
    """Return what a cache holds, or None where there is none. Raises ConfigError for a file that is no cache."""
    if not path.is_file():
        return None
    now = time.time() if now is None else now
    try:
        with closing(connect(path, existing=True)) as db:
            pins.clear_dead(db, pins_of(path))
            rows = db.execute(_BY_ENDPOINT).fetchall()
            (pinned,) = db.execute("SELECT count(DISTINCT key) FROM pins").fetchone()
    except (sqlite3.Error, OSError, NotOurs) as error:
        raise _unusable(path, error) from None
    held = tuple(Held(*row[:5], (now - row[5]) / DAY, (now - row[6]) / DAY) for row in rows)
    return Contents(path, held, pinned, path.stat().st_size)


def clear(path: Path, endpoint: str | None = None, older_than: float | None = None, now: float | None = None) -> int:
    """Remove entries and return how many: all, those of an endpoint, those not used for so many days.

    An endpoint is named by its model, its host, `MODEL at HOST` or its fingerprint. Raises ConfigError for a name that
    none has, and for a file that is no cache.
    """
    if not path.is_file():
        return 0
    where: list[str] = []
    values: list[str | float] = []
    if endpoint is not None:
        where, values = [_OF], [endpoint]
    if older_than is not None:
        where, values = [*where, "used < ?"], [*values, (time.time() if now is None else now) - older_than * DAY]
    try:
        with closing(connect(path, existing=True)) as db:
            if endpoint is not None and not _is_known(db, endpoint):
                raise ConfigError(f"{path}: no endpoint '{endpoint}' has answers here; `evomerge cache` lists those that do")
            removed = db.execute(f"DELETE FROM answers WHERE {' AND '.join(where) or '1'}", values).rowcount
            with suppress(sqlite3.OperationalError):  # another process reads; the room is used again all the same
                db.execute("VACUUM")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except (sqlite3.Error, OSError, NotOurs) as error:
        raise _unusable(path, error) from None
    return removed


def _is_known(db: sqlite3.Connection, endpoint: str) -> bool:
    found = "SELECT 1 FROM endpoints WHERE ? IN (fingerprint, model, host, model || ' at ' || host)"
    return db.execute(found, (endpoint,)).fetchone() is not None


def _unusable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{path}: the cache of answers cannot be used ({error}); remove the file, and a new one is made")
