"""Exporting an ensemble: a folder that says who is asked and how the answers are combined, and a card for people.

No weights and no keys stand in it, only the names of the variables that hold keys. The folder appears whole or not at
all; one that already holds something is never touched.
"""

import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evomerge.backends.api.settings import EndpointSettings
from evomerge.errors import ConfigError
from evomerge.recipe.tree import Ensemble
from evomerge.recipe.writing import to_plain

RECIPE = "recipe.yaml"
_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class EnsembleArtifact:
    """An ensemble of `members` endpoints: a recipe of at most `size` bytes."""

    members: int
    size: int = _BYTES


def export_ensemble(
    recipe: Ensemble,
    endpoints: Mapping[str, EndpointSettings],
    out: Path,
    *,
    answers: Mapping[str, Any] | None = None,
    card: str = "",
) -> EnsembleArtifact:
    """Write recipe.yaml and README.md (with `card`, Markdown, at its end) of an ensemble without holes into `out`.

    `answers` says how answers are compared, ready for YAML. Raises ConfigError when `out` is taken or cannot be
    written.
    """
    out = out.absolute()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out} exists already; choose another folder, or remove it first")
    asked = {item.recipe.name: endpoints[item.recipe.name] for item in recipe.members}
    written: dict[str, Any] = {
        "recipe": to_plain(recipe),
        "endpoints": {
            name: settings.model_dump(mode="json", exclude_defaults=True) for name, settings in asked.items()
        },
    } | ({"answers": dict(answers)} if answers is not None else {})
    text = yaml.safe_dump(written, sort_keys=False, allow_unicode=True)
    beside = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    try:
        beside.mkdir(parents=True)
        (beside / RECIPE).write_text(f"# An ensemble, for `evomerge serve` and `eval`.\n{text}", encoding="utf-8")
        (beside / "README.md").write_text(_card(out.name, asked, text, card), encoding="utf-8")
        beside.replace(out)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror}); choose another folder or disk") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return EnsembleArtifact(len(asked))


def _card(title: str, endpoints: Mapping[str, EndpointSettings], recipe: str, extra: str) -> str:
    members = [f"- `{name}`: `{settings.model}` at `{settings.url}`" for name, settings in endpoints.items()]
    variables = list(dict.fromkeys(one.api_key_env for one in endpoints.values() if one.api_key_env is not None))
    keys = (
        f" The keys come from {', '.join(f'`{name}`' for name in variables)} in the environment." if variables else ""
    )
    parts = [
        "---\ntags: [evomerge, ensemble]\n---",
        f"# {title}",
        "An ensemble of models behind an API, found with evomerge. Each of them is asked, and one answer is made of "
        "theirs:",
        "\n".join(members),
        "## Recipe",
        f"````yaml\n{recipe}````",
        "`evomerge serve .` answers with it, in the dialect of OpenAI's API; `evomerge eval JOB .` scores it on the "
        f"tasks of a job.{keys}",
    ]
    return "\n\n".join([*parts, *([extra.strip()] if extra.strip() else [])]) + "\n"
