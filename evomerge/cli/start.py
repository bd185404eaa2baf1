"""The command that begins: init writes a commented job that runs."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from evomerge.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(
        epilog="Example: evomerge init ./math ./code --base ./base --data items.jsonl --out job.yaml; or, for models "
        "behind an API: evomerge init https://host/v1#small https://host/v1#big --api-key-env MY_KEY --data items.jsonl"
    )(init)


def init(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="The fine-tuned models or adapters to combine; or endpoints, each as URL#MODEL.",
            show_default=False,
        ),
    ],
    *,
    data: Annotated[
        list[Path],
        typer.Option(
            "--data", metavar="FILE", help="Items of a task, JSONL or CSV; once for each task.", show_default=False
        ),
    ],
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The model they were fine-tuned from.", show_default=False)
    ] = None,
    question: Annotated[str | None, typer.Option(metavar="FIELD", help="The field that holds the question.")] = None,
    answer: Annotated[str | None, typer.Option(metavar="FIELD", help="The field that holds the right answer.")] = None,
    api_key_env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="The environment variable that holds an endpoint's key: once for all, or once for each.",
            show_default=False,
        ),
    ] = None,
    trials: Annotated[int, typer.Option(metavar="N", min=1, help="How many recipes to try.")] = 200,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The job to write.")] = Path("job.yaml"),
) -> None:
    """Write a commented job that runs, from models (or endpoints) and a data file.

    The genome fits the number of models, items and trials: few holes where answers are few, holes by group of tensors
    where there are enough to tell them apart.
    """
    from evomerge.study.draft import draft_ensemble, draft_merge, is_endpoint

    if out.exists():
        raise ConfigError(f"{out}: this file exists; remove it, or name another with --out")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"{out}: there is no folder {out.parent}; make it, or name another file with --out")
    folder, keys = out.absolute().parent, api_key_env or []
    addresses = [name for name in models if is_endpoint(name)]
    others = [name for name in (*models, *([] if base is None else [base])) if not is_endpoint(name)]
    if addresses and others:
        raise ConfigError(f"{others[0]}: weights and endpoints cannot be combined yet; name only the one or the other")
    if base is not None and is_endpoint(base):
        raise ConfigError(f"--base {base}: an endpoint is no base, which is a model's folder; leave it out")
    if addresses:
        drafted = draft_ensemble(
            addresses, data, keys=keys, question=question, answer=answer, trials=trials, folder=folder
        )
    elif keys:
        raise ConfigError("--api-key-env: only endpoints take keys, and none is named; write them as URL#MODEL")
    else:
        drafted = draft_merge(models, data, base=base, question=question, answer=answer, trials=trials, folder=folder)
    try:
        out.write_text(drafted.text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out}: this file cannot be written ({error.strerror}); name another with --out") from None
    typer.echo(f"wrote {out}: {drafted.summary}")
    typer.echo(f"Next: {shlex.join(['evomerge', 'check', str(out), '--try', '5'])}")
