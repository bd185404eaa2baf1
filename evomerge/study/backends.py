"""Which backend holds what a job's recipe needs, and who turns its recipes into scores."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from evomerge.backends.api.backend import ApiBackend, MissingKey, keys_from
from evomerge.backends.local import LocalBackend
from evomerge.backends.protocol import Backend
from evomerge.backends.settings import LocalSettings
from evomerge.backends.weights.store import WeightStore
from evomerge.recipe.endpoints import asked_of
from evomerge.recipe.tree import Ensemble, WeightRecipe, as_weights
from evomerge.study.ensemble import EnsembleEvaluator
from evomerge.study.evaluate import TaskEvaluator
from evomerge.study.job import Job
from evomerge.study.journal import Journal
from evomerge.study.prepare import Prepared


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
    if not isinstance(prepared.template, Ensemble):
        typical = prepared.space.decode(prepared.space.start)
        recipes = [as_weights(recipe) for recipe in (typical, *(one.recipe for one in prepared.baselines))]
        return weights_backend(prepared.job, prepared.store, recipes, folder, environment=environment, tell=tell)
    try:
        return ApiBackend(settings.endpoints, keys_from(settings.endpoints, environment))
    except MissingKey as missing:
        path = ("endpoints", missing.endpoint, "api_key_env")
        raise prepared.job.document.error(path, missing.sentence) from None


def weights_backend(
    job: Job,
    store: WeightStore,
    recipes: Sequence[WeightRecipe],
    folder: Path,
    *,
    environment: Mapping[str, str] = os.environ,
    tell: Callable[[str], None] = lambda _: None,
) -> Backend:
    """Return what `backend:` of a job says, for recipes of weights; the first is typical. Raises ConfigError."""
    settings = job.settings.backend
    if isinstance(settings, LocalSettings):
        return LocalBackend(settings, store)
    from evomerge.backends.vllm.make import vllm_backend

    return vllm_backend(settings, store, recipes, root=job.root, folder=folder, environment=environment, tell=tell)


def make_evaluator(
    prepared: Prepared, backend: Backend, journal: Journal, answered: Callable[[int], None]
) -> TaskEvaluator | EnsembleEvaluator:
    """Return who scores the recipes of a job; `answered` is told of items as their scores come."""
    if not isinstance(prepared.template, Ensemble):
        return TaskEvaluator(backend, prepared.tasks, journal, answered)
    return EnsembleEvaluator(backend, prepared.tasks, journal, asked_of(prepared.template), answered)
