"""How fast merging is, beside the floor, mergekit and peft, in turn in one run. Prints Markdown.

    python -m benchmarks.merge.run --size 374m --repeats 5 --methods linear,ties

`--quick` leaves out or does once what takes minutes. Everything is made in, and read from, the folder given by
`--cache`; the first run makes the models there.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.merge import cold, lora, memory
from benchmarks.merge.family import CACHE, SIZES, Family, adapters, family
from benchmarks.merge.tables import machine
from evomerge.strategies.merge.protocol import Method
from evomerge.strategies.merge.registry import methods


class Wanted(argparse.Namespace):
    """What was asked for."""

    size: str
    repeats: int
    threads: int
    methods: str
    parts: str
    quick: bool
    cache: Path


def candidates_part(wanted: Wanted, chosen: Sequence[Method], made: Family) -> str:
    """Return the section about candidates in memory."""
    from benchmarks.merge import candidates
    from benchmarks.merge.floor import Floor

    floor = Floor([folder / "model.safetensors" for folder in (made.base, *made.experts)], wanted.threads)
    found = candidates.measured(chosen, made, floor, wanted.repeats)
    return f"### A candidate in memory\n\n{candidates.shown(found)}"


def cold_part(wanted: Wanted, chosen: Sequence[Method], made: Family) -> str:
    """Return the section about whole processes."""
    if not cold.MERGEKIT.exists():
        return "### From start to end\n\nNot measured: there is no mergekit here (`make bench-merge` installs it)."
    with tempfile.TemporaryDirectory(dir=wanted.cache) as folder:
        names = cold.said(chosen, made, Path(folder))
        found = cold.measured(names, Path(folder), wanted.repeats, wanted.threads, quick=wanted.quick)
    return f"### From start to end\n\n{cold.shown(found)}"


def adapters_part(wanted: Wanted, chosen: Sequence[Method], made: Family) -> str:
    """Return the section about adapters."""
    del chosen
    found = lora.measured(made, adapters(made), wanted.repeats, quick=wanted.quick)
    return f"### Adapters\n\n{lora.shown(found)}"


def memory_part(wanted: Wanted, chosen: Sequence[Method], made: Family) -> str:
    """Return the section about memory."""
    del made
    return f"### Memory\n\n{memory.shown(chosen, wanted.size, wanted.cache)}"


PARTS: Mapping[str, Callable[[Wanted, Sequence[Method], Family], str]] = {
    "candidates": candidates_part,
    "cold": cold_part,
    "adapters": adapters_part,
    "memory": memory_part,
}


def asked() -> Wanted:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="374m", help="which family (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="for all alike (default: %(default)s)")
    parser.add_argument("--methods", default="", help="names with commas between them (default: every method)")
    parser.add_argument("--parts", default=",".join(PARTS), help="which sections (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="leave out, or do once, what takes minutes")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the models are (default: .cache/merge)")
    return parser.parse_args(namespace=Wanted())


def main() -> None:
    """Measure, and print the sections as they come."""
    wanted = asked()
    parts = [part for part in wanted.parts.split(",") if part]
    known = methods()
    names = [name for name in wanted.methods.split(",") if name] or list(known)
    if unknown := [name for name in names if name not in known] + [part for part in parts if part not in PARTS]:
        sys.exit(f"{', '.join(unknown)}: methods are {', '.join(known)}; parts are {', '.join(PARTS)}")
    os.environ["OMP_NUM_THREADS"] = str(wanted.threads)  # read when torch is imported
    made = family(wanted.size, wanted.cache)
    parameters = f"{len(made.experts)} experts and a base of {made.shape.parameters:,} parameters each, in bf16"
    print(f"{parameters}. {machine(wanted.threads)} Medians of {wanted.repeats}, and their range.")
    for part in parts:
        print(f"\n{PARTS[part](wanted, [known[name] for name in names], made)}", flush=True)


if __name__ == "__main__":
    main()
