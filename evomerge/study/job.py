"""The job: what a person writes to start a study.

Composes the settings of the rooms into one model, from which the JSON schema comes as well, and reads a job file into
it with everything checked that can be checked without opening a model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from evomerge.backends.api.cache import Cache, CacheSettings
from evomerge.backends.api.prices import prices_of
from evomerge.backends.api.settings import EndpointSettings
from evomerge.backends.services.settings import ServiceSettings
from evomerge.backends.settings import BackendSettings, LocalSettings
from evomerge.errors import ConfigError
from evomerge.recipe.endpoints import with_endpoints
from evomerge.recipe.mergekit.read import is_mergekit, read_mergekit
from evomerge.recipe.reading import Document, KeyPath, read_yaml, unknown_key
from evomerge.recipe.served import ServedMerge
from evomerge.recipe.served_spec import ServedMergeSettings
from evomerge.recipe.settings import Settings
from evomerge.recipe.spec import RecipeSettings, recipe_settings
from evomerge.recipe.tree import Ensemble, Merge, Recipe, Stack
from evomerge.strategies.ensemble.registry import combiners
from evomerge.strategies.ensemble.resolve import check_ensemble
from evomerge.strategies.merge.registry import methods
from evomerge.strategies.merge.resolve import RecipeProblem, check
from evomerge.strategies.search.make import factory_for
from evomerge.strategies.search.settings import SearchSettings
from evomerge.study.baselines import has_holes
from evomerge.study.costs import check_prices
from evomerge.study.limits import BudgetSettings
from evomerge.study.objectives import COST, Objective, ObjectiveSettings, ObjectivesSettings, objectives_of, quality_of
from evomerge.study.own_methods import import_methods
from evomerge.tasks.settings import SplitSizes, TaskSettings

EndpointName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
FINALISTS, FINALISTS_OF_A_FRONT = 8, 24


class SelectionSettings(Settings):
    """How the winner is chosen, on items that the search has not seen."""

    finalists: int | None = Field(default=None, ge=1)
    """How many of the best searched recipes are compared on the select split, beside the strategy's own favourites: 8,
    and 24 where there are several objectives, which then stand for the whole front."""


class JobSettings(Settings):
    """A job for `evomerge run`."""

    model_config = ConfigDict(title="evomerge job")

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the study and of its folder; the file's name if left out."""
    recipe: RecipeSettings
    """How models are combined, with holes where the search may choose."""
    endpoints: dict[EndpointName, EndpointSettings] = Field(default_factory=dict[str, EndpointSettings])
    """Models behind an API, by the names that an ensemble's members have for them."""
    tasks: list[TaskSettings] = Field(min_length=1)
    """What the models are to be good at."""
    splits: SplitSizes = SplitSizes()
    """Items of each task in each split, for tasks that do not say so themselves."""
    objective: ObjectivesSettings = ObjectiveSettings()
    """What is searched for: one objective, or a list of several for a Pareto search."""
    search: SearchSettings = SearchSettings()
    """Who proposes recipes, and how many."""
    selection: SelectionSettings = SelectionSettings()
    """How the winner is chosen."""
    backend: BackendSettings = LocalSettings()
    """Where recipes are held and asked."""
    cache: Cache = CacheSettings()
    """Where answers of endpoints are kept, so that none is paid for twice; `false` keeps none."""
    budget: BudgetSettings = BudgetSettings()
    """How much may be used."""
    order: Literal["strict", "arrival"] = "strict"
    """`strict`: interrupted or not, the study is the same. `arrival`: results enter as they come."""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is searched for, the mean score first."""
        return objectives_of(self.objective)

    @property
    def coverage(self) -> float:
        """The share of items that must have an answer."""
        return quality_of(self.objective).coverage

    @property
    def finalists(self) -> int:
        """How many searched recipes are compared on the select split."""
        return self.selection.finalists or (FINALISTS if len(self.objectives) == 1 else FINALISTS_OF_A_FRONT)


class RecipeFile(Settings):
    """A file that holds a recipe, and perhaps the rest of a job."""

    model_config = ConfigDict(extra="ignore")

    recipe: RecipeSettings
    """How models are combined."""
    endpoints: dict[EndpointName, EndpointSettings] = Field(default_factory=dict[str, EndpointSettings])
    """Models behind an API."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job that was read: its settings, where it stood, and the document for messages about it."""

    settings: JobSettings
    name: str
    root: Path
    document: Document

    @property
    def template(self) -> Recipe:
        """The recipe with its holes, sources as written and endpoints with their fingerprints."""
        return _known(self.settings.recipe.tree(), self.settings.endpoints)


def load_job(path: Path) -> Job:
    """Read a job file. Raises ConfigError naming file, line and key for whatever is wrong with it."""
    document = read_yaml(path)
    settings = document.parse(JobSettings)
    _check_recipe(document, settings.recipe.tree(), settings.endpoints, ("recipe",))
    if settings.endpoints and "backend" in document.data:
        raise document.error(("backend",), "an ensemble of endpoints is held nowhere, and has no backend; remove it")
    _check_service(document, settings)
    _check_objectives(document, settings)
    check_prices(document, settings)
    names = [task.name for task in settings.tasks]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise document.error(("tasks", index, "name"), f"there are two tasks named '{name}'; rename one")
    name = settings.name or path.name.removesuffix(".yaml").removesuffix(".yml")
    return Job(settings, name, path.absolute().parent, document)


def _check_service(document: Document, settings: JobSettings) -> None:
    """Raise ConfigError where only one of recipe and backend is of a merging service."""
    served = isinstance(settings.recipe, ServedMergeSettings)
    if served and not isinstance(settings.backend, ServiceSettings):
        raise document.error(
            ("backend",), "adapters by their ids are merged by the service that holds them; write backend: {kind: "
            "service, dialect: lorax, url: ...}, or name folders with model: instead of adapter:"
        )  # fmt: skip
    if isinstance(settings.backend, ServiceSettings) and not served:
        raise document.error(
            ("backend", "kind"), "a service merges adapters that it holds; write the recipe's models as {adapter: its id "
            "there}, or choose local or vllm"
        )  # fmt: skip


def _check_objectives(document: Document, settings: JobSettings) -> None:
    """Raise ConfigError where the recipe has no such objectives, prices are not known, or the strategy cannot."""
    wanted = settings.objectives
    if len(wanted) == 1:
        return
    if not settings.endpoints:
        raise document.error(
            ("objective",), "only endpoints have a cost and a latency of their own, and this recipe has none; write "
            "{maximize: mean}"
        )
    for name, endpoint in settings.endpoints.items():
        if COST in wanted and prices_of(endpoint) is None:
            raise document.error(
                ("endpoints", name), "the objective cost needs the prices of every endpoint; write "
                "usd_per_mtok: [READ, WRITTEN], with [0, 0] for one that costs nothing"
            )
    try:
        factory_for(settings.search.strategy, len(wanted))
    except ConfigError as error:
        raise document.error(("search", "strategy"), str(error)) from None


def load_recipe(path: Path) -> Recipe:
    """Read a recipe without holes: a file of its own, or a job's. Raises ConfigError naming file, line and key."""
    return load_recipe_file(path)[0]


def load_recipe_file(path: Path) -> tuple[Recipe, Mapping[str, EndpointSettings]]:
    """Read a recipe without holes, and the endpoints that stand beside it; a file of mergekit is such a recipe, too.

    Raises ConfigError as `load_recipe` does.
    """
    if is_mergekit(path):
        return _of_mergekit(path), {}
    document = read_yaml(path)
    inside = isinstance(document.data, dict) and "recipe" in document.data
    file = document.parse(RecipeFile) if inside else RecipeFile(recipe=document.parse(recipe_settings(document.data)))
    recipe, prefix = file.recipe.tree(), ("recipe",) if inside else ()
    _check_recipe(document, recipe, file.endpoints, prefix)
    if has_holes(recipe):
        raise document.error(prefix, "it has holes; `evomerge run` searches for their values, a merge needs numbers")
    return _known(recipe, file.endpoints), file.endpoints


def _of_mergekit(path: Path) -> Recipe:
    recipe = read_mergekit(path).recipe
    try:
        check(recipe)
    except RecipeProblem as problem:
        raise ConfigError(f"{path}: {problem}") from None
    return recipe


def _check_recipe(
    document: Document,
    recipe: Merge | Stack | Ensemble | ServedMerge,
    endpoints: Mapping[str, EndpointSettings],
    prefix: KeyPath,
) -> None:
    """Raise ConfigError, naming the key, for a recipe that cannot be, and for endpoints that do not fit it.

    Methods that the recipe names as `my.module:function` are imported first.
    """
    try:
        match recipe:
            case Merge() | Stack():
                import_methods(recipe, Path(document.file).absolute().parent)
                check(recipe)
                asked: list[str] = []
            case Ensemble():
                check_ensemble(recipe)
                asked = [item.recipe.name for item in recipe.members]
            case ServedMerge():
                asked = []
    except RecipeProblem as problem:
        raise document.error((*prefix, *problem.path), problem.sentence) from None
    for index, name in enumerate(asked):
        if name not in endpoints:
            what = unknown_key(name, list(endpoints)).replace("key", "endpoint", 1)
            where = "" if endpoints else "; name url and model of each under endpoints:"
            raise document.error((*prefix, "members", index, "endpoint"), what.removesuffix("; remove it") + where)
    for name in endpoints:
        if name not in asked:
            raise document.error(
                ("endpoints", name),
                "no member of the recipe asks this endpoint; add it to recipe.members, or remove it",
            )


def _known(recipe: Merge | Stack | Ensemble | ServedMerge, endpoints: Mapping[str, EndpointSettings]) -> Recipe:
    """Return the recipe, with the fingerprints of its endpoints put in."""
    if not isinstance(recipe, Ensemble):
        return recipe
    return with_endpoints(recipe, {name: settings.fingerprint for name, settings in endpoints.items()})


def job_schema() -> dict[str, Any]:
    """Return the JSON schema of a job, with the parameters of every method and combiner spelled out."""
    schema = JobSettings.model_json_schema(by_alias=True)
    definitions: dict[str, dict[str, Any]] = schema["$defs"]
    owners = {
        "MergeSettings": "merge", "InputSettings": "input",
        "EnsembleSettings": "ensemble", "MemberSettings": "member",
    }  # fmt: skip
    for name, of in owners.items():
        definition = definitions[name]
        value = definition.pop("additionalProperties")
        for parameter, users, text in _parameters(of):
            described = f"{text} ({', '.join(users)})"
            definition["properties"][parameter] = {"description": described, **value}
        definition["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _parameters(of: str) -> list[tuple[str, list[str], str]]:
    """Return each parameter's name, the methods or combiners that have it, and what it does."""
    found: dict[str, tuple[list[str], str]] = {}
    for method in (*methods().values(), *combiners().values()):
        for parameter in method.parameters:
            if parameter.of == of:
                found.setdefault(parameter.name, ([], parameter.doc))[0].append(method.name)
    return [(name, users, text) for name, (users, text) in sorted(found.items())]
