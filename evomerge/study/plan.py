"""What a study will cost and need, said before anything is spent."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evomerge.backends.api.export import EnsembleArtifact
from evomerge.backends.api.prices import is_kept, prices_of
from evomerge.backends.protocol import Backend, Placement, Unsupported
from evomerge.backends.services.export import ServedArtifact
from evomerge.backends.weights.artifact import AdapterArtifact, Artifact
from evomerge.errors import ConfigError
from evomerge.recipe.tree import Ensemble
from evomerge.study.costs import Cost, costs
from evomerge.study.prepare import Prepared
from evomerge.study.proxy import COMPARED
from evomerge.study.spending import known_to
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

    `costs` are those of each endpoint on each split, for what is not known already; `unpriced` are endpoints whose prices
    nobody named, which are in no sum of money, and `listed` those whose prices are kept ones. `proxy` is how a search by proxy holds its trials.
    """

    artifact: Artifact | EnsembleArtifact | ServedArtifact
    placement: Placement
    shares: tuple[Share, ...]
    costs: tuple[Cost, ...] = ()
    unpriced: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    proxy: Placement | None = None

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
        return _plan_of_ensemble(prepared, backend, artifact, placement)
    settings = prepared.job.settings
    compared = len(prepared.baselines)
    finalists = settings.finalists + 1
    proxy = _by_proxy(prepared, backend)
    searched = compared + settings.search.trials + (0 if proxy is None else COMPARED + settings.finalists)
    shares = (
        Share("search", searched, prepared.items("search")),
        Share("select", compared + finalists, prepared.items("select")),
        Share("test", compared + 1, prepared.items("test")),
    )
    return Plan(artifact, placement, shares, proxy=proxy)


def _by_proxy(prepared: Prepared, backend: Backend) -> Placement | None:
    """Return how trials are held where the search is by proxy. Raises ConfigError when they cannot be."""
    if prepared.proxy is None:
        return None
    placement = backend.plan(prepared.proxy.outlined(prepared.space.decode(prepared.space.start)))
    if isinstance(placement, Unsupported):
        raise prepared.job.document.error(("backend", "proxy"), placement.reason)
    return placement


def _plan_of_ensemble(
    prepared: Prepared, backend: Backend, artifact: Artifact | EnsembleArtifact | ServedArtifact, placement: Placement
) -> Plan:
    """Return the plan of a study in which every endpoint is asked every item once."""
    endpoints = prepared.job.settings.endpoints
    found = costs(prepared, known_to(backend))
    shares: list[Share] = []
    for split in SPLITS:
        usd = [one.usd for one in found if one.split == split and one.usd is not None]
        shares.append(Share(split, len(endpoints), prepared.items(split), sum(usd) if usd else None))
    return Plan(
        artifact, placement, tuple(shares), found,
        unpriced=tuple(name for name, endpoint in endpoints.items() if prices_of(endpoint) is None),
        listed=tuple(name for name, endpoint in endpoints.items() if is_kept(endpoint)),
    )  # fmt: skip


def check_room(
    plan: Plan, folder: Path, free: Callable[[Path], int] = lambda place: shutil.disk_usage(place).free
) -> None:
    """Raise ConfigError when the disk has no room for the result; `free` gives a folder's free bytes."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    adapters = 0 if plan.proxy is None else plan.proxy.memory_bytes
    what = "the result and the proxy need" if adapters else "the result needs"
    needed, there = plan.artifact.size + adapters + MARGIN, free(place)
    if needed > there:
        raise ConfigError(
            f"{folder}: {what} {in_words(needed)} and this disk has {in_words(there)} free; "
            "free some space, or choose another place with --study"
        )


def artifact_in_words(artifact: Artifact | EnsembleArtifact | ServedArtifact) -> str:
    """Say what a recipe becomes."""
    if isinstance(artifact, EnsembleArtifact):
        return f"an ensemble of {artifact.members} endpoints, each asked every item once"
    if isinstance(artifact, ServedArtifact):
        return f"a merge of {artifact.adapters} adapters, made by the service on request"
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
