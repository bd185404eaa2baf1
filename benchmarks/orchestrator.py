"""What a trial costs besides its answers: ask, decode, journal, tell, at 50 genes; and what `import evomerge` costs.

The journal is in memory, so that the disk's own time is left out; its size a trial is measured in a file. Prints the
median and the spread of several runs.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from evomerge.recipe.holes import Hole
from evomerge.recipe.space import Space
from evomerge.recipe.tree import Input, Merge, Recipe, Source, recipe_id
from evomerge.strategies.search.make import make_strategy
from evomerge.strategies.search.settings import SearchSettings
from evomerge.study.evaluate import Work
from evomerge.study.fitness import Evaluated
from evomerge.study.journal import Journal
from evomerge.study.limits import Limits
from evomerge.study.loop import Search

GENES, TRIALS, RUNS = 50, 400, 5
TEMPLATE = Merge(
    "task_arithmetic",
    tuple(Input(Source(f"m{i}", fingerprint=f"{i:032x}"), {"weight": Hole(-0.5, 1.5)}) for i in range(GENES)),
    Source("base", fingerprint="b" * 32),
)


class Instant:
    """Answers at once: only the orchestrator's own work is left."""

    async def evaluate(self, work: Work[Recipe]) -> Evaluated:
        value = sum(float(item.params["weight"]) for item in work.recipe.inputs)  # pyright: ignore
        return Evaluated({"task": {"item": -abs(value)}})


def search(strategy: str, journal: Journal, trials: int) -> float:
    """Return the CPU seconds that a search takes."""
    space: Space[Recipe] = Space(TEMPLATE)
    run = Search(
        space=space,
        strategy=make_strategy(SearchSettings(strategy=strategy, seed=1), space.genes, space.start),
        evaluator=Instant(),
        journal=journal,
        limits=Limits(trials=trials),
        weights={"task": 1.0},
        identify=recipe_id,
    )
    begin = time.process_time()
    asyncio.run(run.run())
    return time.process_time() - begin


def seconds_to_import() -> float:
    """Return the seconds by which a Python that imports evomerge is slower than one that imports nothing."""

    def run(code: str) -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - begin

    return run("import evomerge") - run("pass")


def show(name: str, values: list[float], unit: str) -> None:
    print(f"{name:<44} median {statistics.median(values):8.2f} {unit}   ({min(values):.2f} to {max(values):.2f})")


def main() -> None:
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}; {RUNS} runs each")
    search("cma", Journal(None), 20)
    for strategy in ("cma", "de", "pso", "tbpsa", "random"):
        values = [search(strategy, Journal(None), TRIALS) / TRIALS * 1000 for _ in range(RUNS)]
        show(f"own work a trial, {strategy}, {GENES} genes", values, "ms")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        journal = Journal(path)
        search("cma", journal, TRIALS)
        journal.close()
        show("journal a trial, without items", [path.stat().st_size / TRIALS], "B ")
    show("import evomerge", [seconds_to_import() * 1000 for _ in range(RUNS)], "ms")


if __name__ == "__main__":
    main()
