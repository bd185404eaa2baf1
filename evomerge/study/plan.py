"""What a study will cost and need, said before anything is spent."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evomerge.backends.protocol import Backend, Placement, Unsupported
from evomerge.backends.weights.artifact import AdapterArtifact, Artifact
from evomerge.errors import ConfigError
from evomerge.study.prepare import Prepared
from evomerge.tasks.settings import Split

MARGIN = 64 * 1024 * 1024
"""Bytes that are left free beside what a study writes."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one split costs: how many recipes are asked, how many items each."""

    split: Split
    recipes: int
    items: int

    @property
    def requests(self) -> int:
        """Requests in all, if no recipe comes twice."""
        return self.recipes * self.items


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a study: what its result becomes, how it is held, and what each split costs (in requests)."""

    artifact: Artifact
    placement: Placement
    shares: tuple[Share, ...]

    @property
    def requests(self) -> int:
        """Requests in all."""
        return sum(share.requests for share in self.shares)


def plan(prepared: Prepared, backend: Backend) -> Plan:
    """Return the plan of a study. Raises ConfigError when the backend cannot hold its recipes."""
    typical = prepared.space.decode(prepared.space.start)
    placement = backend.plan(typical)
    if isinstance(placement, Unsupported):
        raise prepared.job.document.error(("backend",), placement.reason)
    settings = prepared.job.settings
    compared = len(prepared.baselines)
    finalists = settings.selection.finalists + 1
    shares = (
        Share("search", compared + settings.search.trials, prepared.items("search")),
        Share("select", compared + finalists, prepared.items("select")),
        Share("test", compared + 1, prepared.items("test")),
    )
    return Plan(prepared.store.artifact(typical), placement, shares)


def check_room(
    plan: Plan, folder: Path, free: Callable[[Path], int] = lambda place: shutil.disk_usage(place).free
) -> None:
    """Raise ConfigError when the disk has no room for the merged model; `free` gives a folder's free bytes."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    needed, there = plan.artifact.size + MARGIN, free(place)
    if needed > there:
        raise ConfigError(
            f"{folder}: the merged model needs {in_words(needed)} and this disk has {in_words(there)} free; "
            "free some space, or choose another place with --study"
        )


def artifact_in_words(artifact: Artifact) -> str:
    """Say what a recipe becomes."""
    if isinstance(artifact, AdapterArtifact):
        return f"an adapter of rank {artifact.rank} or less, {in_words(artifact.size)}"
    return f"a checkpoint, {in_words(artifact.size)}"


def in_words(size: int) -> str:
    """Write bytes as people read them."""
    number, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{number:.0f} {unit}" if number >= 100 or unit == "B" else f"{number:.1f} {unit}"
