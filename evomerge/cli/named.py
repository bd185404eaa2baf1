"""What a name on the command line stands for: a model folder, a recipe's file, an exported ensemble, an endpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.errors import ConfigError

if TYPE_CHECKING:
    from evomerge.backends.api.settings import EndpointSettings
    from evomerge.recipe.tree import Recipe
    from evomerge.study.job import Job


def named(name: str, job: "Job | None" = None) -> "tuple[Recipe, Path, Mapping[str, EndpointSettings]]":
    """Return what a name stands for, the folder that its relative paths count from, and the endpoints it asks.

    With a job, the names of its endpoints are known.
    """
    from evomerge.recipe.tree import Endpoint, Source
    from evomerge.study.job import load_recipe_file

    if job is not None and name in job.settings.endpoints:
        endpoints = job.settings.endpoints
        return Endpoint(name, endpoints[name].fingerprint), job.root, endpoints
    file = recipe_file(name)
    if file is None:
        return Source(name), Path.cwd(), {}
    recipe, endpoints = load_recipe_file(file)
    return recipe, root_of(file, recipe), endpoints


def recipe_file(name: str) -> Path | None:
    """Return the file of a recipe that a name stands for, or None where it is a model.

    An exported model has its recipe beside its weights, and is a model all the same.
    """
    exported = Path(name) / "recipe.yaml"
    if exported.is_file() and not any(Path(name).glob("*config.json")):
        return exported
    return Path(name) if name.endswith((".yaml", ".yml")) else None


def root_of(file: Path, recipe: "Recipe") -> Path:
    """Return the folder that the relative paths of a recipe file count from.

    That is the nearest to the file, its own folder first, from which all of the recipe's models are found: an export
    stands somewhere below the job that its recipe comes from. Models that are in none of these folders do not count, as
    they may be on the hub. Raises ConfigError where no one folder has the others all.
    """
    from evomerge.recipe.tree import sources

    above = file.absolute().parents
    names = dict.fromkeys(source.model for source in sources(recipe))
    found = {root: [name for name in names if (root / Path(name).expanduser()).is_dir()] for root in above}
    wanted = [name for name in names if any(name in there for there in found.values())]
    for root, there in found.items():
        if there == wanted:
            return root
    nearest = next(root for root, there in found.items() if there)
    missing = next(name for name in wanted if name not in found[nearest])
    elsewhere = next(root for root, there in found.items() if missing in there)
    raise ConfigError(
        f"{file}: its models are not all found from one folder: {found[nearest][0]} is in {nearest}, and {missing} is "
        f"in {elsewhere}; put the file where one path leads to each, or write absolute paths"
    )
