"""The command line as a user has it, over a family of very small random models in the current folder."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from evomerge.cli.main import run
from tests.support.models import save_adapter, save_model

JOB = """\
recipe:
  method: task_arithmetic
  base: models/base
  models:
    - {model: models/one, weight: {low: 0, high: 1}}
    - {model: models/two, weight: {low: 0, high: 1}}
tasks:
  - {name: sums, data: items.jsonl, prompt: "{{question}}", score: exact, search_by: likelihood, max_tokens: 3}
  - {name: words, data: items.jsonl, prompt: "say {{question}}", score: contains, max_tokens: 3}
splits: {search: 4, select: 4, test: 4}
search: {strategy: random, trials: 3, seed: 1}
selection: {finalists: 2}
"""


def write_family(folder: Path) -> Path:
    """Write three models, a wider and deeper one, two adapters, items, and a job.yaml over the first three."""
    for seed, name in enumerate(("base", "one", "two")):
        save_model(folder / "models" / name, seed)
    save_model(folder / "models" / "wide", 3, hidden_size=48, num_hidden_layers=4)
    for seed, name in enumerate(("short", "long"), start=1):
        save_adapter(folder / "adapters" / name, folder / "models" / "base", seed, rank=seed)
        config = folder / "adapters" / name / "adapter_config.json"
        settings = json.loads(config.read_text()) | {"base_model_name_or_path": "models/base"}
        config.write_text(json.dumps(settings))
    rows = ({"question": f"{number}+1=", "answer": str(number + 1)} for number in range(20))
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "job.yaml").write_text(JOB)
    return folder


@dataclass(frozen=True)
class Done:
    """What a command did: its exit code, and what it printed."""

    code: int
    out: str
    err: str


def call(capsys: pytest.CaptureFixture[str], *words: str) -> Done:
    """Run a command in this process, as `evomerge` does, and return what became of it."""
    capsys.readouterr()
    code = run(list(words))
    printed = capsys.readouterr()
    return Done(code, printed.out, printed.err)


def execute(*words: str, **environment: str) -> Done:
    """Run a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "evomerge", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={name: value for name, value in (os.environ | {"OMP_NUM_THREADS": "1"} | environment).items() if value},
    )
    return Done(done.returncode, done.stdout, done.stderr)


def everything_in(folder: Path) -> dict[str, bytes | None]:
    """Return each file with its content, and each folder, below a folder.

    Left out is what SQLite keeps beside a database while it is looked at.
    """
    return dict(_below(folder))


def _below(folder: Path) -> Iterator[tuple[str, bytes | None]]:
    for path in sorted(folder.rglob("*")):
        if not path.name.endswith(("-shm", "-wal")):
            yield str(path.relative_to(folder)), path.read_bytes() if path.is_file() else None
