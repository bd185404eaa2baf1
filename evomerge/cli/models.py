"""Commands about models: merge, eval, export."""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from evomerge.errors import ConfigError
from evomerge.tasks.settings import Split

if TYPE_CHECKING:
    from evomerge.recipe.tree import Recipe
    from evomerge.study.job import Job

Out = Annotated[Path, typer.Argument(metavar="OUT", help="The new folder.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog="Example: evomerge merge recipe.yaml ./merged")(merge)
    app.command("eval", epilog="Example: evomerge eval job.yaml ./merged ./base --split test")(evaluate)
    app.command(epilog="Example: evomerge export studies/quickstart ./merged --trial 17")(export)


def merge(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A recipe without holes, in YAML.", show_default=False)
    ],
    out: Out,
) -> None:
    """Merge models as a recipe says, and write the result to a new folder that transformers or peft loads."""
    from evomerge.backends.weights.export import export as write
    from evomerge.backends.weights.store import WeightStore
    from evomerge.study.job import load_recipe

    store = WeightStore()
    resolved = store.resolve(load_recipe(recipe), recipe.absolute().parent)
    store.check(resolved)
    store.check_values(resolved)
    write(store, resolved, out)
    typer.echo(f"merged into {out}")


def evaluate(
    job: Annotated[Path, typer.Argument(metavar="JOB", help="A job whose tasks to use.", show_default=False)],
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="Model folders, adapters, hub ids or recipe files.", show_default=False
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
    from evomerge.backends.local import LocalBackend
    from evomerge.backends.weights.store import WeightStore
    from evomerge.cli.tables import score_table
    from evomerge.recipe.tree import recipe_id
    from evomerge.study.evaluate import TaskEvaluator, Work
    from evomerge.study.fitness import Scores
    from evomerge.study.journal import Journal
    from evomerge.study.prepare import load_tasks
    from evomerge.study.result import Contender, rows

    tasks = load_tasks(job)
    store = WeightStore()
    contenders: list[Contender] = []
    for name in models:
        recipe = store.resolve(_recipe(name), Path.cwd())
        store.check(recipe)
        contenders.append(Contender(name, "single", recipe, recipe_id(recipe)))
    scored: list[tuple[Contender, Scores]] = []
    backend = LocalBackend(job.settings.backend, store)
    try:
        with closing(Journal(None)) as journal:
            evaluator = TaskEvaluator(backend, tasks, journal)
            for contender in contenders:
                work = Work(contender.recipe, contender.recipe_id, split)
                scored.append((contender, await evaluator.evaluate(work)))
    finally:
        await backend.close()
    first = contenders[0].name if len(contenders) > 1 else None
    bounded = all(task.unit(split) == "share" for task in tasks)
    table = rows(scored, {task.name: task.weight for task in tasks}, first, bounded=bounded)
    Console().print(score_table(table, first, None))


def _recipe(name: str) -> "Recipe":
    from evomerge.recipe.tree import Source
    from evomerge.study.job import load_recipe

    if name.endswith((".yaml", ".yml")):
        return load_recipe(Path(name))
    return Source(name)


def export(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The study's folder.", show_default=False)],
    out: Out,
    trial: Annotated[
        int | None, typer.Option(metavar="N", help="Export this trial instead of the winner.", show_default=False)
    ] = None,
) -> None:
    """Write the winner of a study, or one of its trials, to a new folder that transformers or peft loads."""
    from evomerge.backends.weights.export import export as write
    from evomerge.study.reopen import reopen

    reopened = reopen(study)
    recipe, note = reopened.winner() if trial is None else reopened.trial(trial)
    write(reopened.prepared.store, recipe, out, card=note)
    typer.echo(f"exported into {out}")
