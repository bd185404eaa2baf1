"""The anonymous memory that a candidate takes: at its peak, above that of a process which has everything imported.

Each method is measured in a process of its own; the memory for the result is there before. Pages of mapped files do
not count, since the system drops them when it needs room.

    python -m benchmarks.merge.memory --size tiny --method ties
"""

import argparse
import json
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from benchmarks.merge.family import CACHE, SIZES, family
from benchmarks.merge.recipes import drawn, models_of, recipe_of, resolved
from benchmarks.merge.tables import table
from evomerge.strategies.merge.protocol import Method

SHARE = 1.2
"""Memory that is allowed, in float32 copies of the largest tensor, for each model and one more."""

_EVERY = 0.002  # seconds between two looks


def anonymous() -> int:
    """Return the bytes of memory of this process that are no file's."""
    found = re.search(r"^RssAnon:\s*(\d+) kB$", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


class Watch:
    """Looks at the anonymous memory again and again, from its own thread, while a block runs."""

    def __init__(self) -> None:
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_EVERY):
            self.peak = max(self.peak, anonymous())


def shown(methods: Sequence[Method], size: str, cache: Path) -> str:
    """Return the table."""
    rows: list[tuple[str, ...]] = []
    for method in methods:
        command = [sys.executable, "-m", "benchmarks.merge.memory", "--method", method.name, "--size", size]
        done = subprocess.run([*command, "--cache", str(cache)], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{method.name} was not measured")
        used, allowed = json.loads(done.stdout)
        rows.append((method.name, f"{used / 2**20:.0f}", f"{allowed / 2**20:.0f}"))
    return table(("method", "MiB above the imports", "at most"), rows)


def main() -> None:
    """Measure one method and print the bytes it used, and those it may use."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="374m")
    parser.add_argument("--method", required=True)
    parser.add_argument("--cache", type=Path, default=CACHE)
    wanted = parser.parse_args()

    from benchmarks.merge.candidates import materialise, room
    from evomerge.backends.weights.store import WeightStore
    from evomerge.strategies.merge.registry import get

    method, made = get(wanted.method), family(wanted.size, wanted.cache)
    store = WeightStore()
    recipe = resolved(store, recipe_of(method, made), made)
    into = room(store, recipe)
    before = anonymous()
    with Watch() as watch:
        for number in range(2):
            materialise(store, drawn(recipe, method, number), into)
    allowed = SHARE * 4 * made.shape.largest * (models_of(recipe) + 1)
    print(json.dumps([watch.peak - before, allowed]))


if __name__ == "__main__":
    main()
