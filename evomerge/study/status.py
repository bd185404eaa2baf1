"""What a study's folder tells about it, read without disturbing a process that works on it."""

from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evomerge.backends.api.ledger import LEDGER
from evomerge.backends.api.spent import Spent, read_ledger
from evomerge.errors import ConfigError
from evomerge.study.agreement import agreement_of
from evomerge.study.front import non_dominated
from evomerge.study.journal import Journal, elapsed
from evomerge.study.objectives import OBJECTIVES, gains


@dataclass(frozen=True, slots=True)
class Point:
    """A recipe that no other of the study beats in all objectives, and what it reached."""

    name: str
    objectives: dict[str, float]


@dataclass(frozen=True, slots=True)
class Status:
    """How far a study is. `phase` is search, selection, test or finished; `best` is the best fitness of the search.

    `proxy` says, of a search by proxy, how well that agrees with exact scores, once some trials have both.
    `front` are the points that no other beats, where a study has several objectives: of the search, and once there is a
    winner those that were delivered, with what they reached on the select split.
    `spent` is what requests to endpoints have cost, where any were sent.
    """

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
    proxy: str | None = None
    front: tuple[Point, ...] = ()
    spent: Spent | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return the status as JSON-ready data."""
        plain = asdict(self)
        plain["spent"] = None if self.spent is None else self.spent.to_plain()
        return plain


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
    searched: list[Point] = []
    front: list[Point] | None = None
    for event in journal.events():
        if event.kind == "tell":
            trials += 1
            value = event.data.get("fitness")
            failed += value is None
            if "objectives" in event.data:
                searched.append(Point(f"trial {event.trial}", event.data["objectives"]))
            if value is not None and (best is None or value > best):
                best, best_trial = value, event.trial
        elif event.kind == "ask":
            ended, winner, finished, front = None, None, False, None
        elif "search_ended" in event.data:
            ended = event.data["search_ended"]
        elif "winner" in event.data:
            winner, finished = event.data["winner"]["name"], False
            front = [Point(one["name"], one["objectives"]) for one in event.data.get("front", ())]
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
        proxy=_proxy(journal),
        front=tuple(_front(searched) if front is None else front),
        spent=read_ledger(folder / LEDGER),
    )


def _front(points: list[Point]) -> list[Point]:
    """Return the points that no other beats, the best mean first."""
    if not points:
        return []
    objectives = [one for name, one in OBJECTIVES.items() if name in points[0].objectives]
    gained = [gains(point.objectives, objectives) for point in points]
    return [points[index] for index in sorted(non_dominated(gained), key=lambda i: gained[i], reverse=True)]


def _proxy(journal: Journal) -> str | None:
    rank, found = (journal.fact("identity") or {}).get("proxy"), journal.fact("agreement")
    if rank is None:
        return None
    if found is None:
        return f"trials are scored by adapters of rank {rank}; none is scored exactly yet"
    return agreement_of(found).sentence

