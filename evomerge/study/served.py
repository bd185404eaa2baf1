"""Studies of merges that a service makes: what is asked of it before anything is searched."""

import os
from collections.abc import Mapping, Sequence

from evomerge.backends.services.make import no_likelihoods, service_backend
from evomerge.backends.services.offer import UnknownAdapter
from evomerge.backends.services.settings import ServiceSettings
from evomerge.errors import EvomergeError
from evomerge.recipe.served import ServedMerge
from evomerge.study.job import Job
from evomerge.tasks.settings import SPLITS
from evomerge.tasks.task import Task


def service_of(job: Job) -> ServiceSettings:
    """Return the service that a job names. Raises ConfigError where it names another backend, or none."""
    settings = job.settings.backend
    if not isinstance(settings, ServiceSettings):
        raise job.document.error(
            ("backend",),
            "adapters that a service holds are merged by it; write backend: {kind: service, dialect: ..., url: ...}",
        )
    return settings


def resolved(job: Job, recipe: ServedMerge, environment: Mapping[str, str] = os.environ) -> ServedMerge:
    """Return a recipe with the fingerprints of the service and its adapters, which are asked for.

    Raises ConfigError for adapters that are not there, naming their key, and BackendError or EndpointPaused where the
    service does not tell.
    """
    settings = service_of(job)
    backend = service_backend(settings, root=job.root, folder=job.root, environment=environment)
    try:
        return backend.known(recipe)
    except UnknownAdapter as unknown:
        raise job.document.error(("recipe", "models", unknown.index, "adapter"), str(unknown)) from None
    except EvomergeError as error:
        raise type(error)(f"{job.document.file}: {error}") from None


def refuse_unanswered(job: Job, tasks: Sequence[Task]) -> None:
    """Raise ConfigError for a task that asks what the service does not answer: likelihoods, or answers among choices."""
    settings = service_of(job)
    reason = no_likelihoods(settings)
    for index, (task, written) in enumerate(zip(tasks, job.settings.tasks, strict=True)):
        if written.constrain:
            raise job.document.error(
                ("tasks", index, "constrain"), "answers of a merging service cannot be held to choices; remove it"
            )
        for split in SPLITS:
            if reason is not None and task.judges(split):
                by_search = split == "search" and written.search_by is not None
                raise job.document.error(("tasks", index, "search_by" if by_search else "score"), reason)
