"""Whole processes from start to end: `evomerge merge` and `mergekit-yaml`, given the same file, one of mergekit's.

evomerge keeps compiled kernels and the hashes of files that it has seen in the user's cache folder, so it is measured
three times: when it has never run, when these files are new to it, and when it has seen them. Both programs may keep
their compiled modules. mergekit computes in bfloat16 here, which is faster than its
float32 and what its users write.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from benchmarks.merge.family import Family
from benchmarks.merge.recipes import drawn, recipe_of
from benchmarks.merge.tables import ratio, seconds, table
from evomerge.recipe.mergekit.methods import METHODS, Parameter
from evomerge.recipe.tree import Source
from evomerge.recipe.values import Params, Scalar
from evomerge.strategies.merge.protocol import Method

ROOT = Path(__file__).parents[2]
MERGEKIT = ROOT / ".venv-mergekit" / "bin" / "mergekit-yaml"
_FIFTEEN = ("ties", "breadcrumbs", "breadcrumbs_ties", "sce", "della", "della_linear")
WANTED: Mapping[str, float] = {"linear": 2.5, **dict.fromkeys(_FIFTEEN, 15), "karcher": 50}
"""How many times faster than mergekit evomerge has to be."""

HASHES = "file-hashes.json"
"""The file in which evomerge remembers the hashes of files."""

MINUTES = ("sce", "karcher")
"""Methods for which mergekit takes minutes."""


@dataclass
class Times:
    """Seconds of one method."""

    first: float = 0.0
    new: list[float] = field(default_factory=list[float])
    seen: list[float] = field(default_factory=list[float])
    mergekit: list[float] = field(default_factory=list[float])


def said(methods: Sequence[Method], family: Family, folder: Path) -> list[str]:
    """Write the file NAME.yaml for each method that mergekit has, and return the names."""
    theirs = {method.ours: (name, method) for name, method in METHODS.items()}
    chosen = [method for method in methods if method.name in theirs]
    for method in chosen:
        recipe = drawn(recipe_of(method, family), method, seed=0)
        name, known = theirs[method.name]
        config: dict[str, Any] = {
            "merge_method": name,
            "models": [
                {"model": item.recipe.model, "parameters": _parameters(known.models, item.params)}
                for item in recipe.inputs
                if isinstance(item.recipe, Source)
            ],
            "parameters": _parameters(known.merge, recipe.params),
            "dtype": "bfloat16",
        }
        if isinstance(recipe.base, Source):
            config["base_model"] = recipe.base.model
        (folder / f"{method.name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return [method.name for method in chosen]


def _parameters(known: Mapping[str, Parameter], params: Params) -> dict[str, Any]:
    """Return our parameters as mergekit's; what only we have is left out."""
    found: dict[str, Any] = {}
    for name, parameter in known.items():
        value = params[parameter.ours]
        words = {ours: theirs for theirs, ours in parameter.words.items()}
        if not words or value in words:
            found[name] = words.get(cast(Scalar, value), value)
    return found


def measured(names: Sequence[str], folder: Path, repeats: int, threads: int, *, quick: bool) -> dict[str, Times]:
    """Measure the recipes in turn, again and again; if `quick`, mergekit does once what takes it minutes."""
    found = {name: Times() for name in names}
    out = folder / "out"
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = kept | {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }
    for number in range(repeats):
        for name in names:
            file = str(folder / f"{name}.yaml")
            ours = [sys.executable, "-m", "evomerge", "merge", file, str(out)]
            cache = folder / "caches" / name
            own = environment | {"XDG_CACHE_HOME": str(cache)}
            if number == 0:
                found[name].first = _timed(ours, out, own)
            for file_hashes in cache.rglob(HASHES):
                file_hashes.unlink()
            found[name].new.append(_timed(ours, out, own))
            found[name].seen.append(_timed(ours, out, own))
            if quick and number and name in MINUTES:
                continue
            found[name].mergekit.append(_timed([str(MERGEKIT), file, str(out)], out, environment))
    return found


def shown(found: Mapping[str, Times]) -> str:
    """Return the table."""
    header = (
        "method",
        "evomerge, first ever, s",
        "files new, s",
        "files seen, s",
        "mergekit, s",
        "times faster, files new",
        "files seen",
        "at least",
    )
    rows: list[tuple[str, ...]] = []
    for name, times in found.items():
        rounds = len(times.mergekit)
        rows.append(
            (
                name,
                f"{times.first:.3g}",
                seconds(times.new),
                seconds(times.seen),
                seconds(times.mergekit),
                ratio(times.mergekit, times.new[:rounds]),
                ratio(times.mergekit, times.seen[:rounds]),
                str(WANTED.get(name, "")),
            )
        )
    return table(header, rows)


def _timed(command: Sequence[str], out: Path, environment: Mapping[str, str]) -> float:
    begin = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    took = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    shutil.rmtree(out)
    return took
