"""Which backend holds what a job's recipe needs, and who turns its recipes into scores."""

import os
from collections.abc import Callable, Mapping

from evomerge.backends.api.backend import ApiBackend, MissingKey, keys_from
from evomerge.backends.local import LocalBackend
from evomerge.backends.protocol import Backend
from evomerge.recipe.endpoints import asked_of
from evomerge.recipe.tree import Ensemble
from evomerge.study.ensemble import EnsembleEvaluator
from evomerge.study.evaluate import TaskEvaluator
from evomerge.study.journal import Journal
from evomerge.study.prepare import Prepared


def make_backend(prepared: Prepared, environment: Mapping[str, str] = os.environ) -> Backend:
    """Return the backend of a job: its endpoints, or what `backend:` says.

    Raises ConfigError for an endpoint whose key is not in the environment.
    """
    settings = prepared.job.settings
    if not isinstance(prepared.template, Ensemble):
        return LocalBackend(settings.backend, prepared.store)
    try:
        return ApiBackend(settings.endpoints, keys_from(settings.endpoints, environment))
    except MissingKey as missing:
        path = ("endpoints", missing.endpoint, "api_key_env")
        raise prepared.job.document.error(path, missing.sentence) from None


def make_evaluator(
    prepared: Prepared, backend: Backend, journal: Journal, answered: Callable[[int], None]
) -> TaskEvaluator | EnsembleEvaluator:
    """Return who scores the recipes of a job; `answered` is told of items as their scores come."""
    if not isinstance(prepared.template, Ensemble):
        return TaskEvaluator(backend, prepared.tasks, journal, answered)
    return EnsembleEvaluator(backend, prepared.tasks, journal, asked_of(prepared.template), answered)
