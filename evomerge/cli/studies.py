"""Commands about studies: run, status, check, clean."""

import asyncio
import json
import shlex
import shutil
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from evomerge.backends.protocol import Backend
    from evomerge.backends.weights.proxies import Extracted
    from evomerge.cli.progress import Relay
    from evomerge.recipe.tree import WeightRecipe
    from evomerge.study.job import Job
    from evomerge.study.limits import Stop
    from evomerge.study.prepare import Prepared
    from evomerge.study.result import Outcome

STUDIES = Path("studies")
MORE_TO_DO = 75

JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="The job's YAML file.", show_default=False)]
StudyFolder = Annotated[
    Path | None,
    typer.Option("--study", metavar="FOLDER", help="The study's folder; by default studies/NAME.", show_default=False),
]
ExistingStudy = Annotated[Path, typer.Argument(metavar="STUDY", help="The study's folder.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog="Example: evomerge run configs/quickstart.yaml")(run)
    app.command(epilog="Example: evomerge check job.yaml --try 5")(check)
    app.command(epilog="Example: evomerge status studies/quickstart --json")(status)
    app.command(epilog="Example: evomerge clean studies/quickstart")(clean)


def run(job: JobFile, study: StudyFolder = None) -> int:
    """Run a job, or go on with it: search, choose the winner, test it, export it.

    Stop it with Ctrl-C or SIGTERM whenever you like; the same command goes on. Exit codes: 0 finished, 75 stopped with
    more to do, 73 another process works on the study, 78 something in the job is wrong.
    """
    from evomerge.study.job import load_job

    loaded = load_job(job)
    folder = study or STUDIES / loaded.name
    try:
        with _terminable():
            stopped = _run(loaded, folder, job)
    except KeyboardInterrupt:
        stopped = "interrupted"
    if stopped is None:
        return 0
    command = ["evomerge", "run", str(job), *([] if study is None else ["--study", str(study)])]
    typer.echo(f"{stopped}; nothing is lost. Go on with: {shlex.join(command)}", err=True)
    return MORE_TO_DO


@contextmanager
def _terminable() -> Generator[None]:
    """Let SIGTERM interrupt what is prepared as Ctrl-C does; the study itself stops more gently, and sees to both."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(job: "Job", folder: Path, file: Path) -> str | None:
    """Prepare and run a study and show its outcome; return why it was stopped, or None when it is finished."""
    from evomerge.cli.progress import Relay
    from evomerge.cli.tables import output, print_outcome
    from evomerge.recipe.tree import Ensemble, WeightRecipe
    from evomerge.report.write import write_report
    from evomerge.study.backends import make_backend
    from evomerge.study.limits import Stop
    from evomerge.study.plan import check_room, plan
    from evomerge.study.prepare import prepare

    with Console(stderr=True).status(f"{job.name}: reading models and items…"):
        prepared = prepare(job)
        relay = Relay()
        backend = make_backend(prepared, folder, tell=relay)
        planned = plan(prepared, backend)
        if not (folder / "merged").is_dir():
            check_room(planned, folder)
    stop = Stop()
    outcome = asyncio.run(_work(prepared, folder, backend, stop, relay))
    if outcome is None:
        return stop.reason
    console = output()
    print_outcome(outcome, console)
    written = write_report(outcome, folder)
    made = "Merged model:" if isinstance(outcome.winner.recipe, WeightRecipe) else "Recipe:"
    made = "Ensemble:" if isinstance(outcome.winner.recipe, Ensemble) else made
    typer.echo(f"\n{made:<14} {outcome.merged}")
    typer.echo(f"Report:        {', '.join(map(str, written))}")
    typer.echo(f"Next:          {shlex.join(['evomerge', 'eval', str(file), str(outcome.merged)])}")
    return None


async def _work(
    prepared: "Prepared", folder: Path, backend: "Backend", stop: "Stop", relay: "Relay"
) -> "Outcome | None":
    """Run a study and show how it goes; return None when it was stopped."""
    from evomerge.cli.progress import progress
    from evomerge.study.limits import stopped_by_signals
    from evomerge.study.study import Stopped, Study

    with progress(prepared.job.settings.search.trials) as shown, stopped_by_signals(stop, shown.close):
        relay.to = shown
        try:
            return await Study(prepared, folder, backend, shown, stop).run()
        except Stopped:
            return None


def check(
    job: JobFile,
    attempts: Annotated[
        int, typer.Option("--try", metavar="N", min=0, help="Answer N items of each task and show what came back.")
    ] = 0,
    study: StudyFolder = None,
) -> None:
    """Check all that can be known before anything is spent.

    Files, shapes, tokenizers, weights that are no numbers, holes, memory, disk, number of requests; with --try a few
    items are answered.
    """
    from evomerge.backends.api.money import Amount
    from evomerge.cli.checking import print_plan, try_items
    from evomerge.cli.tables import output
    from evomerge.study.backends import make_backend
    from evomerge.study.costs import check_budget
    from evomerge.study.job import load_job
    from evomerge.study.plan import check_room, plan
    from evomerge.study.prepare import prepare

    loaded = load_job(job)
    with TemporaryDirectory(prefix="evomerge-check-") as logs:
        with Console(stderr=True).status(f"{loaded.name}: reading models and items…"):
            prepared = prepare(loaded)
            prepared.check_values()
            backend = make_backend(prepared, Path(logs), tell=lambda words: typer.echo(words, err=True))
            planned = plan(prepared, backend)
            check_budget(prepared, planned.costs, Amount())
            place = study or STUDIES / loaded.name
            check_room(planned, place)
        console = output()
        proxied, extracted = _proxied(prepared, place, Path(logs), attempts)
        print_plan(prepared, planned, console, extracted)
        if attempts:
            asyncio.run(try_items(prepared, backend, attempts, console, proxied))


def _proxied(
    prepared: "Prepared", study: Path, scratch: Path, attempts: int
) -> "tuple[WeightRecipe | None, dict[str, Extracted]]":
    """Return the proxy of the recipe that a search starts from, if it is to be tried, and which adapters are there.

    What is not there already is extracted into `scratch` then.
    """
    proxy = prepared.proxy
    if proxy is None:
        return None, {}
    known = proxy.known(prepared.store, study)
    if not attempts:
        return None, known
    adapters = proxy.adapters(prepared.store, scratch)
    for name, model in proxy.models.items():
        if name not in known:
            with Console(stderr=True).status(f"extracting {name} as an adapter of rank {proxy.rank}…"):
                known[name] = adapters.extract(model)
    return proxy.made(prepared.space.decode(prepared.space.start), known), known


def status(
    study: ExistingStudy,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")] = False,
) -> None:
    """Tell how far a study is; works while it runs."""
    from evomerge.cli.costs import spent_in_words
    from evomerge.cli.tables import output, print_front
    from evomerge.study.status import read_status

    found = read_status(study)
    if as_json:
        typer.echo(json.dumps(found.to_plain(), indent=2))
        return
    best = "none yet" if found.best is None else f"{found.best:.4f} (trial {found.best_trial})"
    typer.echo(f"study    {found.study}")
    typer.echo(f"phase    {found.phase}" + (f" (the search ended by {found.ended_by})" if found.ended_by else ""))
    typer.echo(f"trials   {found.trials}, of which {found.failed} failed")
    typer.echo(f"best     {best}")
    typer.echo(f"items    {found.items:,} scored in {found.seconds:.0f} s")
    for name, words in spent_in_words(found.spent) if found.spent is not None else ():
        typer.echo(f"{name:<8} {words}")
    if found.proxy is not None:
        typer.echo(f"proxy    {found.proxy}")
    if found.winner is not None:
        typer.echo(f"winner   {found.winner}")
    if found.front:
        typer.echo("front    on the select split" if found.winner is not None else "front    on the search split")
        print_front([(point.name, point.objectives) for point in found.front], output())


def clean(
    study: ExistingStudy,
    everything: Annotated[bool, typer.Option("--all", help="Remove the whole study, journal and all.")] = False,
) -> None:
    """Remove what a study can make again: its merged model and its report. The journal stays, unless --all is given."""
    from evomerge.report.write import REPORT_FILES
    from evomerge.study.deliver import PARTIAL, STUDY_FILES
    from evomerge.study.lock import locked
    from evomerge.study.proxy import FOLDER
    from evomerge.study.status import journal_of

    journal_of(study)
    with locked(study):
        for folder in (study / "merged", study / FOLDER, *study.glob(PARTIAL)):
            if folder.is_dir():
                shutil.rmtree(folder)
        for name in (*REPORT_FILES, *(STUDY_FILES if everything else ())):
            (study / name).unlink(missing_ok=True)
    if everything:
        typer.echo(f"removed {study}" if _removed(study) else f"removed the study; other files are left in {study}")
        return
    typer.echo(f"removed the merged model and the report of {study}; `evomerge run` makes them again")


def _removed(folder: Path) -> bool:
    """Remove a folder that is empty, and return whether it was."""
    try:
        folder.rmdir()
    except OSError:
        return False
    return True
