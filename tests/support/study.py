"""A small real study over the tiny family, run by real processes."""

import os
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.study.journal import ItemScore, Journal

ROOT = Path(__file__).parents[2]
TINY = ROOT / "zoo" / "tiny"

JOB = """
recipe:
  method: task_arithmetic
  base: {tiny}/base
  models:
    - {{model: {tiny}/experts/reverse, weight: {{low: -0.5, high: 1.5, start: 0.4}}}}
    - {{model: {tiny}/experts/sort, weight: {{low: -0.5, high: 1.5, start: 0.4}}}}
tasks:
  - {{name: reverse, data: {tiny}/data/reverse.jsonl, prompt: "{{{{question}}}}", score: exact, max_tokens: 9}}
  - name: sort
    data: {tiny}/data/sort.jsonl
    prompt: "{{{{question}}}}"
    score: exact
    search_by: likelihood
    max_tokens: 9
splits: {{search: {items}, select: {items}, test: {items}}}
search: {{strategy: cma, trials: {trials}, seed: 5}}
selection: {{finalists: 3}}
"""


def write_job(folder: Path, *, trials: int = 60, items: int = 6, extra: str = "") -> Path:
    """Write a job over two experts of the tiny family."""
    path = folder / "job.yaml"
    path.write_text(JOB.format(tiny=TINY, trials=trials, items=items) + extra, encoding="utf-8")
    return path


def start(job: Path, study: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start `evomerge run` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "evomerge", "run", str(job), "--study", str(study), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=job.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finish(job: Path, study: Path) -> str:
    """Run the study to its end and return what it printed."""
    process = start(job, study)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


@dataclass(frozen=True)
class Log:
    """Everything of a journal that must be the same for two runs of one study: times are left out."""

    events: list[tuple[str, int | None, dict[str, Any]]]
    scores: dict[tuple[str, str, str], dict[str, ItemScore]]


def log(study: Path) -> Log:
    """Read a study's log."""
    with closing(Journal(study / "journal.db", read_only=True)) as journal:
        events = [
            (event.kind, event.trial, {key: value for key, value in event.data.items() if key != "elapsed"})
            for event in journal.events()
        ]
        keys = journal._db.execute("SELECT DISTINCT recipe, task, split FROM scores").fetchall()
        return Log(events, {tuple(key): journal.scores(*key) for key in keys})
