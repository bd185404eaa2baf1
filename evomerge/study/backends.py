"""Which backend holds what a job's recipe needs, and who turns its recipes into scores."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from evomerge.backends.api.backend import ApiBackend, MissingKey, keys_from
from evomerge.backends.api.cache import AnswerCache
from evomerge.backends.api.hooks import Answers, NoAnswers
from evomerge.backends.api.ledger import LEDGER, Ledger
from evomerge.backends.local import LocalBackend
from evomerge.backends.protocol import Backend
from evomerge.backends.services.make import service_backend
from evomerge.backends.services.settings import ServiceSettings
from evomerge.backends.settings import LocalSettings
from evomerge.backends.weights.store import WeightStore
from evomerge.recipe.endpoints import asked_of
from evomerge.recipe.served import ServedMerge
from evomerge.recipe.tree import Ensemble, WeightRecipe, as_weights
from evomerge.study.costs import budget_of
from evomerge.study.ensemble import EnsembleEvaluator
from evomerge.study.evaluate import TaskEvaluator
from evomerge.study.job import Job
from evomerge.study.journal import Journal
from evomerge.study.prepare import Prepared
from evomerge.study.served import service_of
from evomerge.tasks.settings import SPLITS


def make_backend(
    prepared: Prepared,
    folder: Path,
    environment: Mapping[str, str] = os.environ,
    tell: Callable[[str], None] = lambda _: None,
) -> Backend:
    """Return the backend of a job: its endpoints, or what `backend:` says.

    `folder` is the study's, where servers write their logs; `tell` hears in words what they do. Raises ConfigError for
    an endpoint whose key is not in the environment, and for a Python or key that a server needs and that is not there.
    """
    settings = prepared.job.settings
    if isinstance(prepared.template, ServedMerge):
        return service_backend(
            service_of(prepared.job), root=prepared.job.root, folder=folder.absolute(), environment=environment
        )
    if not isinstance(prepared.template, Ensemble):
        typical = prepared.space.decode(prepared.space.start)
        recipes = [as_weights(recipe) for recipe in (typical, *(one.recipe for one in prepared.baselines))]
        if prepared.proxy is not None:
            recipes.insert(0, prepared.proxy.outlined(typical))
        return weights_backend(
            prepared.job, prepared.store, recipes, folder, environment=environment,
            judged=any(task.judges(split) for task in prepared.tasks for split in SPLITS), tell=tell,
        )  # fmt: skip
    try:
        keys = keys_from(settings.endpoints, environment)
    except MissingKey as missing:
        path = ("endpoints", missing.endpoint, "api_key_env")
        raise prepared.job.document.error(path, missing.sentence) from None
    return ApiBackend(
        settings.endpoints, keys, answers=_answers(prepared, environment, tell), purse=_ledger(prepared, folder)
    )


def _answers(prepared: Prepared, environment: Mapping[str, str], tell: Callable[[str], None]) -> Answers:
    """Return the cache that a job names."""
    settings = prepared.job.settings
    if settings.cache is False:
        return NoAnswers()
    return AnswerCache(
        settings.cache.place(prepared.job.root, environment),
        max_mb=settings.cache.max_mb,
        keep_prompts=settings.cache.keep_prompts,
        known={one.fingerprint: (one.model, one.host) for one in settings.endpoints.values()},
        tell=tell,
    )


def _ledger(prepared: Prepared, folder: Path) -> Ledger:
    names = {one.fingerprint: name for name, one in prepared.job.settings.endpoints.items()}
    return Ledger(folder / LEDGER, budget_of(prepared), names)


def weights_backend(
    job: Job,
    store: WeightStore,
    recipes: Sequence[WeightRecipe],
    folder: Path,
    *,
    environment: Mapping[str, str] = os.environ,
    judged: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Backend:
    """Return what `backend:` of a job says, for recipes of weights; the first is typical.

    `judged` says whether likelihoods will be asked for. Raises ConfigError.
    """
    settings = job.settings.backend
    if isinstance(settings, LocalSettings):
        return LocalBackend(settings, store)
    if isinstance(settings, ServiceSettings):
        raise job.document.error(("backend", "kind"), "a service holds adapters of its own, and no models of ours")
    from evomerge.backends.vllm.make import vllm_backend

    return vllm_backend(
        settings, store, recipes, root=job.root, folder=folder, environment=environment, judged=judged, tell=tell
    )


def make_evaluator(
    prepared: Prepared, backend: Backend, journal: Journal, answered: Callable[[int], None]
) -> TaskEvaluator | EnsembleEvaluator:
    """Return who scores the recipes of a job; `answered` is told of items as their scores come."""
    if not isinstance(prepared.template, Ensemble):
        return TaskEvaluator(backend, prepared.tasks, journal, answered)
    return EnsembleEvaluator(backend, prepared.tasks, journal, asked_of(prepared.template), answered)
