"""From a job to everything a study works with, checked before anything is spent."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.backends.api.backend import NO_LIKELIHOODS
from evomerge.backends.api.export import EnsembleArtifact, export_ensemble
from evomerge.backends.local.backend import UNCONSTRAINED
from evomerge.backends.services.export import ServedArtifact, export_served
from evomerge.backends.settings import LocalSettings
from evomerge.backends.vllm.settings import VllmSettings
from evomerge.backends.weights.artifact import Artifact
from evomerge.backends.weights.export import export
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import ConfigError, StudyChanged
from evomerge.exchange import Judge
from evomerge.recipe.groups import Layout
from evomerge.recipe.reading import KeyPath
from evomerge.recipe.served import ServedMerge
from evomerge.recipe.space import Space
from evomerge.recipe.tree import Ensemble, Recipe, Source, WeightRecipe, as_weights, children, is_part, recipe_id
from evomerge.strategies.merge.resolve import RecipeProblem, check
from evomerge.study.answers import answers_of
from evomerge.study.baselines import Baseline, baselines
from evomerge.study.job import Job
from evomerge.study.objectives import outline
from evomerge.study.own_methods import method_hashes
from evomerge.study.proxy import Proxy, proxy_of
from evomerge.study.served import refuse_unanswered, resolved, service_of
from evomerge.tasks.settings import SPLITS, Split
from evomerge.tasks.task import Task, load_task


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job whose models and items were found and fit together."""

    job: Job
    store: WeightStore
    template: Recipe
    space: Space[Recipe]
    tasks: tuple[Task, ...]
    baselines: tuple[Baseline, ...]
    identity: Mapping[str, Any]
    proxy: Proxy | None = None

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each task in the fitness."""
        return {task.name: task.weight for task in self.tasks}

    def items(self, split: Split) -> int:
        """Return the number of items that one recipe is asked on a split."""
        return sum(len(task.items(split)) for task in self.tasks)

    def check_values(self) -> None:
        """Read every weight of every model. Raises SourceError for the first that is no finite number."""
        if isinstance(self.template, WeightRecipe):
            self.store.check_values(as_weights(self.template))

    def artifact(self, recipe: Recipe) -> Artifact | EnsembleArtifact | ServedArtifact:
        """Return what a recipe becomes."""
        if isinstance(recipe, Ensemble):
            return EnsembleArtifact(len(recipe.members))
        if isinstance(recipe, ServedMerge):
            return ServedArtifact(len(recipe.inputs))
        return self.store.artifact(as_weights(recipe))

    def export(self, recipe: Recipe, out: Path, *, card: str) -> Artifact | EnsembleArtifact | ServedArtifact:
        """Write what a recipe becomes to a new folder, and return what that is.

        Raises ConfigError when it is taken or cannot be written.
        """
        if isinstance(recipe, Ensemble):
            settings = self.job.settings
            answers = answers_of(settings.tasks).to_plain()
            return export_ensemble(recipe, settings.endpoints, out, answers=answers, card=card)
        if isinstance(recipe, ServedMerge):
            return export_served(recipe, service_of(self.job), out, card=card)
        return export(self.store, as_weights(recipe), out, card=card)


def prepare(job: Job) -> Prepared:
    """Open the models and items of a job and check that they fit. Raises ConfigError; nothing is written or asked."""
    tasks = load_tasks(job)
    store = WeightStore()
    template, layout = job.template, None
    if isinstance(template, Ensemble):
        _refuse_likelihoods(job, tasks)
    elif isinstance(template, ServedMerge):
        refuse_unanswered(job, tasks)
        template = resolved(job, template)
    else:
        template = _resolved(job, as_weights(template), store)
        layout = store.layout(template)
        _refuse_constraints(job)
    space = _space(job, template, layout)
    found = baselines(template, store.is_adapter)
    proxy = _proxy(job, template, space, store)
    return Prepared(job, store, template, space, tasks, tuple(found), _identity(job, template, tasks), proxy)


def _proxy(job: Job, template: Recipe, space: Space[Recipe], store: WeightStore) -> Proxy | None:
    """Return how the search is done by proxy, if it is. Raises ConfigError where it cannot be."""
    rank = _proxy_rank(job)
    if rank is None or not isinstance(template, WeightRecipe):
        return None
    try:
        return proxy_of(as_weights(template), space, store, rank)
    except ConfigError as error:
        raise job.document.error(("backend", "proxy"), str(error)) from None


def _proxy_rank(job: Job) -> int | None:
    backend = job.settings.backend
    return backend.proxy.rank if isinstance(backend, VllmSettings) and backend.proxy is not None else None


def _resolved(job: Job, template: WeightRecipe, store: WeightStore) -> WeightRecipe:
    """Return the recipe with its models found and fitting together."""
    try:
        resolved = store.resolve(template, job.root)
    except ConfigError as error:
        raise _unusable(job, template, store) or error from None
    store.check(resolved)
    return resolved


def _space(job: Job, template: Recipe, layout: Layout | None) -> Space[Recipe]:
    try:
        if layout is not None:
            check(as_weights(template), layout)
        space = Space(template, layout)
    except RecipeProblem as problem:
        raise job.document.error(("recipe", *problem.path), problem.sentence) from None
    except ValueError as error:
        raise job.document.error(("recipe",), str(error)) from None
    if not len(space):
        raise job.document.error(
            ("recipe",), "it has no holes, so there is nothing to search; write a range such as {low: 0, high: 1} "
            f"in place of a number, or use `evomerge {'merge' if isinstance(template, WeightRecipe) else 'eval'}`",
        )  # fmt: skip
    return space


def _refuse_likelihoods(job: Job, tasks: tuple[Task, ...]) -> None:
    """Raise ConfigError for a task that judges by likelihood, where an endpoint does not say how it tells that."""
    if all(endpoint.likelihoods is not None for endpoint in job.settings.endpoints.values()):
        return
    for index, task in enumerate(tasks):
        for split in SPLITS:
            if any(isinstance(task.request(item, split), Judge) for item in task.items(split)):
                by_search = split == "search" and job.settings.tasks[index].search_by is not None
                raise job.document.error(("tasks", index, "search_by" if by_search else "score"), NO_LIKELIHOODS)


def _refuse_constraints(job: Job) -> None:
    """Raise ConfigError for a task whose answers are to be among choices, where the backend cannot see to that."""
    if isinstance(job.settings.backend, LocalSettings):
        for index, task in enumerate(job.settings.tasks):
            if task.constrain:
                raise job.document.error(("tasks", index, "constrain"), UNCONSTRAINED)


def load_tasks(job: Job) -> tuple[Task, ...]:
    """Return the tasks of a job with their items. Raises ConfigError for what is wrong with them."""
    return tuple(_load_task(job, index) for index in range(len(job.settings.tasks)))


def _load_task(job: Job, index: int) -> Task:
    settings = job.settings
    try:
        return load_task(settings.tasks[index], job.root, settings.search.seed, settings.splits)
    except ConfigError as error:
        raise _named(job, ("tasks", index), error) from None


def _named(job: Job, path: KeyPath, error: ConfigError) -> ConfigError:
    """Return an error that says as well where in the job it comes from."""
    return type(error)(str(job.document.error(path, str(error))))


def _unusable(job: Job, template: WeightRecipe, store: WeightStore) -> ConfigError | None:
    """Return what is wrong with the first model that cannot be used, with its key."""
    for path, source in _sources(template, ("recipe",)):
        try:
            store.resolve(source, job.root)
        except ConfigError as error:
            return _named(job, path, error)
    return None


def _sources(recipe: WeightRecipe, path: KeyPath) -> Iterator[tuple[KeyPath, Source]]:
    """Yield the sources of a recipe with their keys in the job."""
    if isinstance(recipe, Source):
        yield path, recipe
    for key, child in children(recipe):
        yield from _sources(child, path if is_part(recipe) else (*path, *key))


def _identity(job: Job, template: Recipe, tasks: tuple[Task, ...]) -> dict[str, Any]:
    """Return what makes a study this study: what may not change while it goes on."""
    settings = job.settings
    search = settings.search.model_dump(mode="json", exclude={"trials"})
    own, rank = method_hashes(template), _proxy_rank(job)
    return ({"methods": own} if own else {}) | ({} if rank is None else {"proxy": rank}) | {
        "recipe": recipe_id(template),
        "tasks": {task.name: task.fingerprint for task in tasks},
        "search": search,
        "objective": outline(settings.objective),
        "order": settings.order,
    }


def check_unchanged(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise StudyChanged where the job is another than the one the study was started with."""
    changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if changed:
        raise StudyChanged(
            f"{name}: {' and '.join(changed)} changed since this study was started, so its trials no longer count; "
            "undo the change, or start a new study with --study"
        )
