"""Commands about models: merge, eval, export, unpack."""

import asyncio
import os
from contextlib import closing
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.named import named, root_of
from evomerge.errors import ConfigError
from evomerge.tasks.settings import Split

if TYPE_CHECKING:
    from evomerge.backends.api.export import EnsembleArtifact
    from evomerge.backends.services.export import ServedArtifact
    from evomerge.backends.weights.artifact import Artifact
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
    resolved = store.resolve(written, root_of(recipe, written))
    store.check(resolved)
    store.check_values(resolved)
    _tell("merged", out, write(store, resolved, out, durable=False))


def _tell(done: str, out: Path, artifact: "Artifact | EnsembleArtifact | ServedArtifact") -> None:
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
    from evomerge.backends.services.make import service_backend
    from evomerge.backends.weights.store import WeightStore
    from evomerge.cli.tables import output, print_scores
    from evomerge.recipe.endpoints import asked_of
    from evomerge.recipe.served import ServedMerge
    from evomerge.recipe.tree import Endpoint, Ensemble, as_weights, recipe_id
    from evomerge.study.backends import weights_backend
    from evomerge.study.ensemble import EnsembleEvaluator
    from evomerge.study.evaluate import TaskEvaluator, Work
    from evomerge.study.fitness import Scores
    from evomerge.study.journal import Journal
    from evomerge.study.prepare import load_tasks
    from evomerge.study.result import Contender, rows
    from evomerge.study.served import resolved, service_of

    tasks = load_tasks(job)
    store = WeightStore()
    contenders: list[Contender] = []
    asked: dict[str, ApiBackend] = {}
    for name in models:
        recipe, root, endpoints = named(name, job)
        if isinstance(recipe, Endpoint | Ensemble):
            asked[name] = ApiBackend(endpoints, keys_from(endpoints, os.environ))
        elif isinstance(recipe, ServedMerge):
            recipe = resolved(job, recipe)
        else:
            recipe = store.resolve(recipe, root)
            store.check(recipe)
            store.check_values(recipe)
        contenders.append(Contender(name, "single", recipe, recipe_id(recipe)))
    scored: list[tuple[Contender, Scores]] = []
    logs = Path(mkdtemp(prefix="evomerge-eval-"))
    served = {
        one.name: service_backend(service_of(job), root=job.root, folder=logs, environment=os.environ)
        for one in contenders
        if isinstance(one.recipe, ServedMerge)
    }
    recipes = [as_weights(one.recipe) for one in contenders if one.name not in {*asked, *served}]
    say = partial(typer.echo, err=True)
    held = [weights_backend(job, store, recipes, logs, tell=say)] if recipes else []
    try:
        with closing(Journal(None)) as journal:
            for contender in contenders:
                api = asked.get(contender.name)
                members = asked_of(contender.recipe)
                evaluator = (
                    TaskEvaluator(served.get(contender.name) or held[0], tasks, journal)
                    if api is None
                    else EnsembleEvaluator(api, tasks, journal, members)
                )
                work = Work(contender.recipe, contender.recipe_id, split)
                scored.append((contender, (await evaluator.evaluate(work)).scores))
    finally:
        for one in (*held, *asked.values(), *served.values()):
            await one.close()
        rmtree(logs, ignore_errors=True)
    first = contenders[0].name if len(contenders) > 1 else None
    bounded = all(task.unit(split) == "share" for task in tasks)
    table = rows(scored, {task.name: task.weight for task in tasks}, first, bounded=bounded)
    print_scores(table, first, None, output())


def export(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The study's folder.", show_default=False)],
    out: Out,
    trial: Annotated[
        int | None, typer.Option(metavar="N", help="Export this trial instead of the winner.", show_default=False)
    ] = None,
    pick: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="Of a study with several objectives: knee, cheapest:QUALITY or best-below:USD (per 1,000 questions).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write the winner of a study, one of its trials, or another recipe of its front to a new folder.

    A merge is a folder that transformers or peft loads; an ensemble is a recipe that `evomerge serve` and `eval` read.
    """
    from evomerge.study.pick import parse_pick
    from evomerge.study.reopen import reopen

    if trial is not None and pick is not None:
        raise ConfigError("--trial and --pick each name a recipe; leave one out")
    rule = None if pick is None else parse_pick(pick)
    reopened = reopen(study)
    if rule is not None:
        recipe, note = reopened.pick(rule)
        typer.echo(note)
    else:
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
    write(store, folder, name, store.resolve(recipe.base, root_of(file, recipe.base)), out)
    typer.echo(f"unpacked into {out}")
