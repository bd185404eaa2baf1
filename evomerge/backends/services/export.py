"""Exporting a merge that a service makes: a folder that says which adapters, with which weights, and a card for people.

No weights and no keys stand in it. The folder appears whole or not at all; one that holds something is never touched.
"""

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from evomerge.backends.services.settings import ServiceSettings
from evomerge.errors import ConfigError
from evomerge.recipe.served import ServedMerge
from evomerge.recipe.writing import to_plain

RECIPE = "recipe.yaml"
_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class ServedArtifact:
    """A merge of `adapters` that a service makes on request: a recipe of at most `size` bytes."""

    adapters: int
    size: int = _BYTES


def export_served(recipe: ServedMerge, settings: ServiceSettings, out: Path, *, card: str = "") -> ServedArtifact:
    """Write recipe.yaml and README.md (with `card`, Markdown, at its end) of a merge without holes into `out`.

    Raises ConfigError when `out` is taken or cannot be written.
    """
    out = out.absolute()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out} exists already; choose another folder, or remove it first")
    text = yaml.safe_dump({"recipe": to_plain(recipe)}, sort_keys=False, allow_unicode=True)
    beside = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    try:
        beside.mkdir(parents=True)
        (beside / RECIPE).write_text(f"# A merge by a service, for `evomerge eval`.\n{text}", encoding="utf-8")
        (beside / "README.md").write_text(_card(out.name, settings, text, card), encoding="utf-8")
        beside.replace(out)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror}); choose another folder or disk") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return ServedArtifact(len(recipe.inputs))


def _card(title: str, settings: ServiceSettings, recipe: str, extra: str) -> str:
    parts = [
        "---\ntags: [evomerge, lora]\n---",
        f"# {title}",
        f"Adapters of a service ({settings.dialect} at `{settings.url}`), merged by it on request; found with evomerge.",
        "## Recipe",
        f"````yaml\n{recipe}````",
        "`evomerge eval JOB .` scores it on the tasks of a job that names the service.",
    ]
    return "\n\n".join([*parts, *([extra.strip()] if extra.strip() else [])]) + "\n"
