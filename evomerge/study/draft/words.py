"""What drafts have in common: the drafted job, and how counts, paths and texts are written in it."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evomerge.recipe.reading import parse_yaml
from evomerge.study.job import JobSettings
from evomerge.tasks.task import load_task


@dataclass(frozen=True, slots=True)
class Draft:
    """A job's text, and one line about what was chosen."""

    text: str
    summary: str


def drafted(lines: Sequence[str], folder: Path, chosen: Sequence[str]) -> Draft:
    """Return the draft of a job in `folder`, once it is read again and its tasks load. Raises ConfigError otherwise."""
    text = "\n".join(lines) + "\n"
    settings = parse_yaml(text, "the drafted job").parse(JobSettings)
    for task in settings.tasks:
        load_task(task, folder, settings.search.seed, settings.splits)
    return Draft(text, ", ".join([*chosen, count(len(settings.tasks), "task"), count(settings.search.trials, "trial")]))


def count(number: int, thing: str) -> str:
    """Say how many there are of a thing."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def seen_from(folder: Path, name: str) -> str:
    """Write a path as it is seen from the job's folder; a hub id stays."""
    path = Path(name)
    if not path.exists():
        return name
    relative = os.path.relpath(path.absolute(), folder)
    return relative if relative.startswith(".") else f"./{relative}"


def quoted(text: str) -> str:
    """Write a text as YAML, without quotes where none are needed."""
    plain = re.fullmatch(r"(\.{1,2}/)*[A-Za-z][\w./-]*", text) and text.lower() not in {"true", "false", "null"}
    return text if plain else json.dumps(text, ensure_ascii=False)
