"""The command that serves: a found ensemble, or a model of weights, as an OpenAI-compatible endpoint."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.named import named, recipe_file
from evomerge.errors import ConfigError

if TYPE_CHECKING:
    from evomerge.serve.answering import Answering

_MIB = 1 << 20


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(epilog="Example: evomerge serve studies/ensemble/merged --port 8000")(serve)


def serve(  # noqa: PLR0917  # options of the command line
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="An exported ensemble, a recipe or job file without holes, a model folder, adapter or hub id.",
            show_default=False,
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; one that others can reach wants --api-key-env.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option(help="Name of the model; by default that of its folder.", show_default=False)
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE",
            help="Variable that holds the key clients must show, or several with commas between.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Requests a minute for each key.", show_default=False)
    ] = None,
    in_flight: Annotated[int, typer.Option(metavar="N", min=1, help="Requests under way at a time, for all.")] = 64,
    deadline: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.1, help="When an answer is made of those that members have given."),
    ] = 60.0,
    max_body: Annotated[int, typer.Option(metavar="MIB", min=1, help="Longest body of a request.")] = 1,
) -> None:
    """Answer in the dialect of OpenAI's API, with an ensemble or with a model of weights, until SIGTERM or Ctrl-C.

    Paths: /v1/chat/completions, /v1/completions, /v1/models, /health, /metrics.
    """
    from evomerge.serve.guard import keys_from
    from evomerge.serve.server import LOOPBACK, bound

    if host not in LOOPBACK and api_key_env is None:
        raise ConfigError(
            f"--host {host}: others can reach this address, and every question may cost money; put a key into a "
            "variable and name it with --api-key-env"
        )
    keys = keys_from(api_key_env, os.environ)
    door = bound(host, port)
    try:
        from evomerge.serve.front import Front, Limits
        from evomerge.serve.server import address
        from evomerge.serve.server import serve as run
    except ImportError:
        raise ConfigError(
            "serving takes starlette and uvicorn; install them with: pip install 'evomerge[serve]'"
        ) from None
    limits = Limits(rate=rate, in_flight=in_flight, body=max_body * _MIB, seconds=deadline)
    title = name or _title(model)

    async def work() -> None:
        answering = _answering(model, title, deadline)
        app = Front(answering, title, keys, limits, local=host in LOOPBACK).app()

        def ready() -> None:
            typer.echo(f"{title}: {answering.summary}")
            typer.echo(f"serving on {address(door)} until Ctrl-C; curl {address(door)}/models")

        await run(app, answering, door, grace=deadline, ready=ready)

    with door:
        asyncio.run(work())


def _title(model: str) -> str:
    """Return what a model is called: its folder or file, and for the winner of a study the study."""
    path = Path(model).absolute()
    if path.name == "recipe.yaml":
        path = path.parent
    return path.parent.name if path.name == "merged" else path.name.removesuffix(".yaml").removesuffix(".yml")


def _answering(model: str, title: str, deadline: float) -> "Answering":
    """Return who answers for a model. Raises ConfigError for one that cannot be."""
    from evomerge.backends.api.backend import ApiBackend, keys_from
    from evomerge.backends.api.pace import Pace
    from evomerge.backends.local import LocalBackend
    from evomerge.backends.settings import LocalSettings
    from evomerge.backends.weights.store import WeightStore
    from evomerge.recipe.tree import Ensemble, as_weights
    from evomerge.serve.ensemble import EnsembleAnswering
    from evomerge.serve.weights import WeightsAnswering
    from evomerge.study.answers import AnswerSettings, load_answers

    recipe, root, endpoints = named(model)
    file = recipe_file(model)
    answers = AnswerSettings() if file is None else load_answers(file)
    if isinstance(recipe, Ensemble):
        keys, pace = keys_from(endpoints, os.environ), Pace(attempts=2, first=0.1, most=0.4)
        return EnsembleAnswering(
            recipe, lambda: ApiBackend(endpoints, keys, pace), answers, root, deadline=deadline, tell=_tell
        )
    store = WeightStore()
    weights = store.resolve(as_weights(recipe), root)
    store.check(weights)
    return WeightsAnswering(title, weights, LocalBackend(LocalSettings(), store), answers.sampling)


def _tell(sentence: str) -> None:
    typer.echo(sentence, err=True)
