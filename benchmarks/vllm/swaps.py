"""A candidate of whole models, two ways in turn: swapped into a server that runs, and written out for a server's start.

Both servers are started alike, and read and compute the same models in bfloat16. After each start both are asked the
same question: their answers have to be equal, or one of the ways measured something else.
"""

import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.merge.tables import seconds, table
from benchmarks.vllm.models import Models
from evomerge.backends.vllm.link import Link
from evomerge.backends.vllm.server import Server
from evomerge.backends.vllm.settings import VllmSettings
from evomerge.backends.vllm.wire import to_wire
from evomerge.backends.weights.export import export
from evomerge.backends.weights.store import WeightStore
from evomerge.recipe.tree import Input, Merge, Source, WeightRecipe, recipe_id

PARTS = ("open", "check", "merge", "load")
QUESTION = {"model": "base", "prompt": "The capital of France is", "max_tokens": 16, "temperature": 0}


@dataclass
class Swaps:
    """Seconds of swaps and of their parts, of the first swap and what came before it, and of the other way."""

    first: float = 0.0
    start: float = 0.0
    whole: list[float] = field(default_factory=list[float])
    parts: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in (*PARTS, "call", "reset")})
    exports: list[float] = field(default_factory=list[float])
    starts: list[float] = field(default_factory=list[float])


async def measured(made: Models, rounds: int, swaps: int) -> Swaps:
    """Measure `rounds` times: `swaps` swaps, then the last of these candidates the other way. Raises SystemExit."""
    store, found, number = WeightStore(), Swaps(), 0
    ours = _server(made.base, made.folder / "swaps.log")
    try:
        begun = time.perf_counter()
        link = await ours.ready()
        found.start = time.perf_counter() - begun
        recipe = _candidate(store, made, number)
        begun = time.perf_counter()
        await _called(link, "evomerge_open", {"recipe": to_wire(recipe), "experts": "auto"})
        await _swapped(link, recipe)
        found.first = time.perf_counter() - begun
        for _ in range(rounds):
            for _ in range(swaps):
                number += 1
                recipe = _candidate(store, made, number)
                _note(found, *await _swapped(link, recipe))
            said = await _asked(link)
            if await _other_way(store, recipe, made.folder / "candidate", found) != said:
                sys.exit("The swapped model and the exported one answer differently.")
    finally:
        await ours.stop()
    return found


def shown(found: Swaps) -> str:
    """Return what was measured in Markdown."""
    other = [export + start for export, start in zip(found.exports, found.starts, strict=True)]
    rows = [
        ["**a swap**", seconds(found.whole)],
        *([f"- {part}", seconds(values)] for part, values in found.parts.items()),
        ["**a checkpoint and a start**", seconds(other)],
        ["- writing the checkpoint", seconds(found.exports)],
        ["- from starting the server until it is healthy", seconds(found.starts)],
    ]
    middle = median(other) / median(found.whole)
    least, most = min(other) / max(found.whole), max(other) / min(found.whole)
    words = (
        f"{len(found.whole)} swaps and {len(other)} starts in turn: a swap is {middle:.0f} times faster (of the "
        f"medians; {least:.0f} for the slowest swap and the fastest start, {most:.0f} the other way round). Once a "
        f"study: {found.start:.1f} s for the server's first start, {found.first:.1f} s to open the models and for the "
        "first swap."
    )
    return f"{words}\n\n{table(['part', 'seconds'], rows)}"


async def _swapped(link: Link, recipe: WeightRecipe) -> tuple[Mapping[str, float], float, float]:
    """Swap a recipe in as the backend does; return the worker's seconds, and those of the call and of the reset."""
    begun = time.perf_counter()
    told = await _called(link, "evomerge_hold", {"recipe": to_wire(recipe), "id": recipe_id(recipe)})
    called = time.perf_counter()
    await link.forget_prefixes()
    return told["seconds"], called - begun, time.perf_counter() - called


def _note(found: Swaps, worker: Mapping[str, float], call: float, reset: float) -> None:
    found.whole.append(call + reset)
    for part in PARTS:
        found.parts[part].append(worker[part])
    found.parts["call"].append(call - sum(worker[part] for part in PARTS))
    found.parts["reset"].append(reset)


async def _other_way(store: WeightStore, recipe: WeightRecipe, out: Path, found: Swaps) -> object:
    """Write a recipe's checkpoint and start a server on it; return what that answers."""
    shutil.rmtree(out, ignore_errors=True)
    begun = time.perf_counter()
    export(store, recipe, out, durable=False)
    found.exports.append(time.perf_counter() - begun)
    server = _server(out, out.with_name("starts.log"))
    try:
        begun = time.perf_counter()
        link = await server.ready()
        found.starts.append(time.perf_counter() - begun)
        return await _asked(link)
    finally:
        await server.stop()
        shutil.rmtree(out, ignore_errors=True)


def _server(model: Path, log: Path) -> Server:
    settings = VllmSettings.model_validate({"kind": "vllm", "dtype": "bfloat16", "args": {"enforce-eager": True}})
    python = Path(sys.executable)
    return Server(settings, python, model, name=model.name, log=log, number=0, adapters=None, tell=_tell)


def _candidate(store: WeightStore, made: Models, number: int) -> WeightRecipe:
    """Return a recipe of all experts whose weights are its own."""
    inputs = tuple(
        Input(Source(str(expert)), {"weight": 0.2 + 0.01 * number + 0.1 * place})
        for place, expert in enumerate(made.experts)
    )
    return store.resolve(Merge("task_arithmetic", inputs, Source(str(made.base))), made.folder)


async def _called(link: Link, method: str, argument: Mapping[str, Any]) -> Mapping[str, Any]:
    told = (await link.call(method, argument))[0]
    if "error" in told:
        sys.exit(f"{method}: {told['error']}")
    return told


async def _asked(link: Link) -> object:
    return (await link.complete(QUESTION))["choices"][0]["text"]


def _tell(words: str) -> None:
    if os.isatty(2):
        print(words, file=sys.stderr)
