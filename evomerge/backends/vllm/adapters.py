"""Adapters on their way into a server: written where it can read them, in memory where there is some.

Every adapter has a folder of its own that is gone when it is let go. What a killed process left behind is removed by
the next one: a folder's name tells the process that made it.
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from evomerge.backends.weights.adapter_folder import write_adapter
from evomerge.backends.weights.artifact import LowRank
from evomerge.recipe.tree import Source

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # names there are drawn, and the folder is for its owner alone
_NAME = re.compile(r"evomerge-adapters-(?P<process>[0-9]+)-[0-9a-f]{16}")


class AdapterRoom:
    """A folder for adapters, made when the first is written; below `parent`, or else in shared memory."""

    def __init__(self, parent: Path | None) -> None:
        self._parent = parent
        self._folder: Path | None = None

    def write(self, name: str, factors: Mapping[str, LowRank], base: Source, modules: Iterable[str]) -> Path:
        """Write an adapter and return its folder. Raises OSError."""
        folder = self._made() / name
        folder.mkdir()
        write_adapter(folder, factors, base, modules)
        return folder

    def remove(self, name: str) -> None:
        """Remove an adapter's folder, if it is there."""
        if self._folder is not None:
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def close(self) -> None:
        """Remove everything. Calling it twice is harmless."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _made(self) -> Path:
        if self._folder is None:
            parent = self._parent or _in_memory()
            parent.mkdir(parents=True, exist_ok=True)
            for left in parent.iterdir():
                if (found := _NAME.fullmatch(left.name)) and not _runs(int(found["process"])):
                    shutil.rmtree(left, ignore_errors=True)
            self._folder = parent / f"evomerge-adapters-{os.getpid()}-{secrets.token_hex(8)}"
            self._folder.mkdir(mode=0o700)
        return self._folder


def zeros(modules: Mapping[str, tuple[int, int]]) -> dict[str, LowRank]:
    """Return an adapter of rank one that changes nothing of modules, whose weights have these shapes (out, in)."""
    import torch

    return {
        name: LowRank(a=torch.zeros(1, columns), b=torch.zeros(rows, 1)) for name, (rows, columns) in modules.items()
    }


def _in_memory() -> Path:
    if os.access(SHARED_MEMORY, os.W_OK):
        return SHARED_MEMORY
    import tempfile

    return Path(tempfile.gettempdir())


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
