"""The job: what a person writes to start a study.

Composes the settings of the rooms into one model, from which the JSON schema comes as well, and reads a job file into
it with everything checked that can be checked without opening a model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from evomerge.backends.settings import LocalSettings
from evomerge.recipe.reading import Document, read_yaml
from evomerge.recipe.settings import Settings
from evomerge.recipe.spec import RecipeSettings, recipe_settings
from evomerge.recipe.tree import Recipe, as_weights
from evomerge.strategies.merge.registry import methods
from evomerge.strategies.merge.resolve import RecipeProblem, check
from evomerge.strategies.search.settings import SearchSettings
from evomerge.study.baselines import has_holes
from evomerge.study.limits import BudgetSettings
from evomerge.tasks.settings import SplitSizes, TaskSettings


class ObjectiveSettings(Settings):
    """What is searched for."""

    maximize: Literal["mean"] = "mean"
    """The mean over tasks (weighted by each task's `weight`) of the mean score over items."""
    coverage: float = Field(default=1.0, gt=0, le=1)
    """Share of items that must have an answer; a trial with fewer has failed."""


class SelectionSettings(Settings):
    """How the winner is chosen, on items that the search has not seen."""

    finalists: int = Field(default=8, ge=1)
    """How many of the best searched recipes are compared on the select split, beside the strategy's own favourites."""


class JobSettings(Settings):
    """A job for `evomerge run`."""

    model_config = ConfigDict(title="evomerge job")

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the study and of its folder; the file's name if left out."""
    recipe: RecipeSettings
    """How models are combined, with holes where the search may choose."""
    tasks: list[TaskSettings] = Field(min_length=1)
    """What the models are to be good at."""
    splits: SplitSizes = SplitSizes()
    """Items of each task in each split, for tasks that do not say so themselves."""
    objective: ObjectiveSettings = ObjectiveSettings()
    """What is searched for."""
    search: SearchSettings = SearchSettings()
    """Who proposes recipes, and how many."""
    selection: SelectionSettings = SelectionSettings()
    """How the winner is chosen."""
    backend: LocalSettings = LocalSettings()
    """Where recipes are held and asked."""
    budget: BudgetSettings = BudgetSettings()
    """How much may be used."""
    order: Literal["strict", "arrival"] = "strict"
    """`strict`: interrupted or not, the study is the same. `arrival`: results enter as they come."""


class RecipeFile(Settings):
    """A file that holds a recipe, and perhaps the rest of a job."""

    model_config = ConfigDict(extra="ignore")

    recipe: RecipeSettings
    """How models are combined."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job that was read: its settings, where it stood, and the document for messages about it."""

    settings: JobSettings
    name: str
    root: Path
    document: Document

    @property
    def template(self) -> Recipe:
        """The recipe with its holes, sources as written."""
        return self.settings.recipe.tree()


def load_job(path: Path) -> Job:
    """Read a job file. Raises ConfigError naming file, line and key for whatever is wrong with it."""
    document = read_yaml(path)
    settings = document.parse(JobSettings)
    template = settings.recipe.tree()
    try:
        check(as_weights(template))
    except RecipeProblem as problem:
        raise document.error(("recipe", *problem.path), problem.sentence) from None
    names = [task.name for task in settings.tasks]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise document.error(("tasks", index, "name"), f"there are two tasks named '{name}'; rename one")
    name = settings.name or path.name.removesuffix(".yaml").removesuffix(".yml")
    return Job(settings, name, path.absolute().parent, document)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe without holes: a file of its own, or a job's. Raises ConfigError naming file, line and key."""
    document = read_yaml(path)
    inside = isinstance(document.data, dict) and "recipe" in document.data
    recipe = (document.parse(RecipeFile).recipe if inside else document.parse(recipe_settings(document.data))).tree()
    prefix = ("recipe",) if inside else ()
    try:
        check(as_weights(recipe))
    except RecipeProblem as problem:
        raise document.error((*prefix, *problem.path), problem.sentence) from None
    if has_holes(recipe):
        raise document.error(prefix, "it has holes; `evomerge run` searches for their values, a merge needs numbers")
    return recipe


def job_schema() -> dict[str, Any]:
    """Return the JSON schema of a job, with the parameters of every method spelled out."""
    schema = JobSettings.model_json_schema(by_alias=True)
    definitions: dict[str, dict[str, Any]] = schema["$defs"]
    for name, of in (("MergeSettings", "merge"), ("InputSettings", "input")):
        definition = definitions[name]
        value = definition.pop("additionalProperties")
        for parameter, users, text in _parameters(of):
            described = f"{text} ({', '.join(users)})"
            definition["properties"][parameter] = {"description": described, **value}
        definition["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _parameters(of: str) -> list[tuple[str, list[str], str]]:
    """Return each parameter's name, the methods that have it, and what it does."""
    found: dict[str, tuple[list[str], str]] = {}
    for method in methods().values():
        for parameter in method.parameters:
            if parameter.of == of:
                found.setdefault(parameter.name, ([], parameter.doc))[0].append(method.name)
    return [(name, users, text) for name, (users, text) in sorted(found.items())]
