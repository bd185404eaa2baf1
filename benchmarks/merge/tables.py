"""How measurements are shown: medians with their spread, tables in Markdown, and the machine they were made on."""

import os
import platform
import re
import statistics
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path


def seconds(values: Sequence[float]) -> str:
    """Return the median and the range of some times, in seconds."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def ratio(upper: Sequence[float], lower: Sequence[float]) -> str:
    """Return the median and the range of ratios of times that were taken in turn."""
    found = [top / bottom for top, bottom in zip(upper, lower, strict=True)]
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine(threads: int, packages: Sequence[str] = ("torch", "numpy", "numba", "peft")) -> str:
    """Return a sentence about the machine, its load and the versions of the packages that are measured."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB$", _text("/proc/meminfo"), re.MULTILINE)
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{os.cpu_count()} cores of {cpu[1] if cpu else platform.machine()}, "
        f"{int(memory[1]) / 2**20 if memory else 0:.0f} GiB of memory, {platform.system()}, "
        f"Python {sys.version.split()[0]}, {versions}; {threads} threads; "
        f"load {os.getloadavg()[0]:.1f} at the start."
    )


def _text(path: str) -> str:
    file = Path(path)
    return file.read_text(encoding="utf-8") if file.is_file() else ""
