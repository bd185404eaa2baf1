"""What a study will cost and need, said before anything is spent."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evomerge.backends.api.export import EnsembleArtifact
from evomerge.backends.api.prices import cost_at_most
from evomerge.backends.protocol import Backend, Placement, Unsupported
from evomerge.backends.weights.artifact import AdapterArtifact, Artifact
from evomerge.errors import ConfigError
from evomerge.recipe.tree import Ensemble
from evomerge.study.prepare import Prepared
from evomerge.tasks.settings import SPLITS, Split

MARGIN = 64 * 1024 * 1024
"""Bytes that are left free beside what a study writes."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one split costs: how many models are asked how many items each, and what endpoints take for it at most.

    `models` counts recipes or, of an ensemble, endpoints; `usd` is None where no endpoint has a price.
    """

    split: Split
    models: int
    items: int
    usd: float | None = None

    @property
    def requests(self) -> int:
        """Requests in all, if no recipe comes twice and none has to be asked again."""
        return self.models * self.items


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a study: what its result becomes, how it is held, and what each split costs.

    `unpriced` are endpoints whose prices nobody named, which are in no sum of money.
    """

    artifact: Artifact | EnsembleArtifact
    placement: Placement
    shares: tuple[Share, ...]
    unpriced: tuple[str, ...] = ()

    @property
    def requests(self) -> int:
        """Requests in all."""
        return sum(share.requests for share in self.shares)

    @property
    def usd(self) -> float | None:
        """The highest cost in all, if no request has to be asked again; None where no endpoint has a price."""
        costs = [share.usd for share in self.shares if share.usd is not None]
        return sum(costs) if costs else None


def plan(prepared: Prepared, backend: Backend) -> Plan:
    """Return the plan of a study. Raises ConfigError when the backend cannot hold its recipes."""
    typical = prepared.space.decode(prepared.space.start)
    placement = backend.plan(typical)
    if isinstance(placement, Unsupported):
        raise prepared.job.document.error(("backend",), placement.reason)
    artifact = prepared.artifact(typical)
    if isinstance(prepared.template, Ensemble):
        endpoints = prepared.job.settings.endpoints
        unpriced = tuple(name for name, endpoint in endpoints.items() if endpoint.usd_per_mtok is None)
        return Plan(artifact, placement, tuple(_asked_once(prepared, split) for split in SPLITS), unpriced)
    settings = prepared.job.settings
    compared = len(prepared.baselines)
    finalists = settings.selection.finalists + 1
    shares = (
        Share("search", compared + settings.search.trials, prepared.items("search")),
        Share("select", compared + finalists, prepared.items("select")),
        Share("test", compared + 1, prepared.items("test")),
    )
    return Plan(artifact, placement, shares)


def _asked_once(prepared: Prepared, split: Split) -> Share:
    """Return what a split of an ensemble's study costs: every endpoint is asked every item once."""
    endpoints = prepared.job.settings.endpoints
    requests = [task.request(item, split) for task in prepared.tasks for item in task.items(split)]
    costs = [cost for endpoint in endpoints.values() if (cost := cost_at_most(endpoint, requests)) is not None]
    return Share(split, len(endpoints), len(requests), sum(costs) if costs else None)


def check_room(
    plan: Plan, folder: Path, free: Callable[[Path], int] = lambda place: shutil.disk_usage(place).free
) -> None:
    """Raise ConfigError when the disk has no room for the result; `free` gives a folder's free bytes."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    needed, there = plan.artifact.size + MARGIN, free(place)
    if needed > there:
        raise ConfigError(
            f"{folder}: the result needs {in_words(needed)} and this disk has {in_words(there)} free; "
            "free some space, or choose another place with --study"
        )


def artifact_in_words(artifact: Artifact | EnsembleArtifact) -> str:
    """Say what a recipe becomes."""
    if isinstance(artifact, EnsembleArtifact):
        return f"an ensemble of {artifact.members} endpoints, each asked every item once"
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
