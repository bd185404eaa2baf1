"""Commands about models: merge, eval, export, unpack."""

import asyncio
import os
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.errors import ConfigError
from evomerge.tasks.settings import Split

if TYPE_CHECKING:
    from evomerge.backends.api.export import EnsembleArtifact
    from evomerge.backends.api.settings import EndpointSettings
    from evomerge.backends.weights.artifact import Artifact
    from evomerge.recipe.tree import Recipe
    from evomerge.study.job import Job

Out = Annotated[Path, typer.Argument(metavar="OUT", help="The new folder.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog="Example: evomerge merge recipe.yaml ./merged")(merge)
    app.command("eval", epilog="Example: evomerge eval job.yaml ./merged ./base --split test")(evaluate)
    app.command(epilog="Example: evomerge export studies/quickstart ./merged --trial 17")(export)
    app.command(epilog="Example: evomerge unpack ./merged sort ./sort-again")(unpack)


def merge(
    recipe: Annotated[
        Path,
        typer.Argument(metavar="RECIPE", help="A recipe without holes, or a file of mergekit.", show_default=False),
    ],
    out: Out,
) -> None:
    """Merge models as a recipe says, and write the result to a new folder that transformers or peft loads."""
    from evomerge.backends.weights.export import export as write
    from evomerge.backends.weights.store import WeightStore
    from evomerge.recipe.mergekit.read import is_mergekit, read_mergekit
    from evomerge.recipe.tree import as_weights
    from evomerge.study.job import load_recipe

    for note in read_mergekit(recipe).notes if is_mergekit(recipe) else ():
        typer.echo(f"note: {note}")
    store = WeightStore()
    written = as_weights(load_recipe(recipe))
    resolved = store.resolve(written, _root(recipe, written))
    store.check(resolved)
    store.check_values(resolved)
    _tell("merged", out, write(store, resolved, out, durable=False))


def _tell(done: str, out: Path, artifact: "Artifact | EnsembleArtifact") -> None:
    """Say where a model is, what it lacks of the merge that it was extracted from, and what packs it has."""
    from evomerge.backends.weights.artifact import AdapterArtifact, CheckpointArtifact

    typer.echo(f"{done} into {out}")
    if isinstance(artifact, AdapterArtifact) and artifact.loss is not None:
        typer.echo(artifact.loss.sentences())
    if isinstance(artifact, CheckpointArtifact) and artifact.packs:
        typer.echo(f"with packs of {', '.join(artifact.packs)}; evomerge unpack {out} {artifact.packs[0]} DEST")


def evaluate(
    job: Annotated[Path, typer.Argument(metavar="JOB", help="A job whose tasks to use.", show_default=False)],
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Model folders, adapters, hub ids, recipe files, exported ensembles, or names of the job's endpoints.",
            show_default=False,
        ),
    ],
    split: Annotated[str, typer.Option(help="Which items: search, select or test.")] = "test",
) -> None:
    """Score models on the tasks of a job; with several, each is compared item by item with the first."""
    from evomerge.study.job import load_job

    splits: dict[str, Split] = {"search": "search", "select": "select", "test": "test"}
    if split not in splits:
        raise ConfigError(f"--split {split}: there is no such split; choose search, select or test")
    asyncio.run(_evaluate(load_job(job), models, splits[split]))


async def _evaluate(job: "Job", models: list[str], split: Split) -> None:
    from evomerge.backends.api.backend import ApiBackend, keys_from
    from evomerge.backends.weights.store import WeightStore
    from evomerge.cli.tables import output, print_scores
    from evomerge.recipe.endpoints import asked_of
    from evomerge.recipe.tree import Endpoint, Ensemble, as_weights, recipe_id
    from evomerge.study.backends import weights_backend
    from evomerge.study.ensemble import EnsembleEvaluator
    from evomerge.study.evaluate import TaskEvaluator, Work
    from evomerge.study.fitness import Scores
    from evomerge.study.journal import Journal
    from evomerge.study.prepare import load_tasks
    from evomerge.study.result import Contender, rows

    tasks = load_tasks(job)
    store = WeightStore()
    contenders: list[Contender] = []
    asked: dict[str, ApiBackend] = {}
    for name in models:
        recipe, root, endpoints = _named(name, job)
        if isinstance(recipe, Endpoint | Ensemble):
            asked[name] = ApiBackend(endpoints, keys_from(endpoints, os.environ))
        else:
            recipe = store.resolve(recipe, root)
            store.check(recipe)
            store.check_values(recipe)
        contenders.append(Contender(name, "single", recipe, recipe_id(recipe)))
    scored: list[tuple[Contender, Scores]] = []
    logs = Path(mkdtemp(prefix="evomerge-eval-"))
    recipes = [as_weights(one.recipe) for one in contenders if one.name not in asked]
    say = partial(typer.echo, err=True)
    held = [weights_backend(job, store, recipes, logs, tell=say)] if recipes else []
    try:
        with closing(Journal(None)) as journal:
            for contender in contenders:
                api = asked.get(contender.name)
                members = asked_of(contender.recipe)
                evaluator = (
                    TaskEvaluator(held[0], tasks, journal)
                    if api is None
                    else EnsembleEvaluator(api, tasks, journal, members)
                )
                work = Work(contender.recipe, contender.recipe_id, split)
                scored.append((contender, (await evaluator.evaluate(work)).scores))
    finally:
        for one in (*held, *asked.values()):
            await one.close()
        rmtree(logs, ignore_errors=True)
    first = contenders[0].name if len(contenders) > 1 else None
    bounded = all(task.unit(split) == "share" for task in tasks)
    table = rows(scored, {task.name: task.weight for task in tasks}, first, bounded=bounded)
    print_scores(table, first, None, output())


def _named(name: str, job: "Job") -> "tuple[Recipe, Path, Mapping[str, EndpointSettings]]":
    """Return what a name stands for, the folder that its relative paths count from, and the endpoints it asks."""
    from evomerge.recipe.tree import Endpoint, Source
    from evomerge.study.job import load_recipe_file

    endpoints = job.settings.endpoints
    if name in endpoints:
        return Endpoint(name, endpoints[name].fingerprint), job.root, endpoints
    exported = Path(name) / "recipe.yaml"
    without_weights = exported.is_file() and not any(Path(name).glob("*config.json"))
    if not (without_weights or name.endswith((".yaml", ".yml"))):
        return Source(name), Path.cwd(), {}
    file = exported if without_weights else Path(name)
    recipe, endpoints = load_recipe_file(file)
    return recipe, _root(file, recipe), endpoints


def _root(file: Path, recipe: "Recipe") -> Path:
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


def export(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The study's folder.", show_default=False)],
    out: Out,
    trial: Annotated[
        int | None, typer.Option(metavar="N", help="Export this trial instead of the winner.", show_default=False)
    ] = None,
) -> None:
    """Write the winner of a study, or one of its trials, to a new folder.

    A merge is a folder that transformers or peft loads; an ensemble is a recipe that `evomerge eval` reads.
    """
    from evomerge.study.reopen import reopen

    reopened = reopen(study)
    recipe, note = reopened.winner() if trial is None else reopened.trial(trial)
    _tell("exported", out, reopened.prepared.export(recipe, out, card=note))


def unpack(
    folder: Annotated[
        Path, typer.Argument(metavar="MODEL", help="An export with packs (method: emr).", show_default=False)
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The pack's name.", show_default=False)],
    out: Out,
) -> None:
    """Turn a unified model back into nearly one of the models it was merged from, with that model's pack.

    Needs the base that recipe.yaml names, not the models.
    """
    from evomerge.backends.weights.store import WeightStore
    from evomerge.backends.weights.unpacking import unpack as write
    from evomerge.recipe.tree import Merge
    from evomerge.study.job import load_recipe

    file = folder / "recipe.yaml"
    recipe = load_recipe(file)
    if not isinstance(recipe, Merge) or recipe.base is None:
        raise ConfigError(f"{file}: it has no base, so there are no packs that stand on one")
    store = WeightStore()
    write(store, folder, name, store.resolve(recipe.base, _root(file, recipe.base)), out)
    typer.echo(f"unpacked into {out}")
