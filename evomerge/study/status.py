"""What a study's folder tells about it, read without disturbing a process that works on it."""

from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evomerge.errors import ConfigError
from evomerge.study.journal import Journal, elapsed


@dataclass(frozen=True, slots=True)
class Status:
    """How far a study is. `phase` is search, selection, test or finished; `best` is the best fitness of the search."""

    study: str
    phase: str
    trials: int
    failed: int
    best: float | None
    best_trial: int | None
    items: int
    seconds: float
    winner: str | None
    ended_by: str | None
    versions: dict[str, str]

    def to_plain(self) -> dict[str, Any]:
        """Return the status as JSON-ready data."""
        return asdict(self)


def journal_of(folder: Path) -> Path:
    """Return the journal of a study's folder. Raises ConfigError where there is none."""
    path = folder / "journal.db"
    if not path.is_file():
        raise ConfigError(f"{folder}: there is no study here (no journal.db); name the folder that `evomerge run` made")
    return path


def read_status(folder: Path) -> Status:
    """Return the status of the study in a folder.

    Raises ConfigError where there is none, StudyBroken for a broken one.
    """
    with closing(Journal(journal_of(folder), read_only=True)) as journal:
        return _status(folder, journal)


def _status(folder: Path, journal: Journal) -> Status:
    trials = failed = 0
    best: float | None = None
    best_trial: int | None = None
    ended = winner = None
    finished = False
    for event in journal.events():
        if event.kind == "tell":
            trials += 1
            value = event.data.get("fitness")
            failed += value is None
            if value is not None and (best is None or value > best):
                best, best_trial = value, event.trial
        elif event.kind == "ask":
            ended, winner, finished = None, None, False
        elif "search_ended" in event.data:
            ended = event.data["search_ended"]
        elif "winner" in event.data:
            winner, finished = event.data["winner"]["name"], False
        elif event.data.get("finished"):
            finished = True
    phase = "finished" if finished else "test" if winner else "selection" if ended else "search"
    versions: dict[str, str] = journal.fact("versions") or {}
    return Status(
        study=str(folder),
        phase=phase,
        trials=trials,
        failed=failed,
        best=best,
        best_trial=best_trial,
        items=journal.count_asked(),
        seconds=elapsed(journal),
        winner=winner,
        ended_by=ended,
        versions=versions,
    )
