"""What was given to a service and is to be taken back, written down before it is given, so that a kill loses nothing.

One small JSON file, always whole on the disk. It names adapters and the address that they were loaded at, no keys.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

FILE = "service.json"


@dataclass(frozen=True, slots=True)
class Leftover:
    """An adapter of ours at a service: where, its name there, and the folder that it was written to."""

    url: str
    name: str
    folder: str


class Leftovers:
    """The note of a study, in its folder; there is no file where nothing is left."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE

    def all(self) -> list[Leftover]:
        """Return what is noted."""
        try:
            found: Any = json.loads(self._file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [Leftover(one["url"], one["name"], one["folder"]) for one in cast("list[dict[str, str]]", found)]

    def add(self, leftover: Leftover) -> None:
        """Note one; when this returns it is on the disk. Raises OSError."""
        self._write([*self.all(), leftover])

    def remove(self, leftover: Leftover) -> None:
        """Forget one that was taken back. Raises OSError."""
        self._write([one for one in self.all() if one != leftover])

    def _write(self, leftovers: Sequence[Leftover]) -> None:
        if not leftovers:
            self._file.unlink(missing_ok=True)
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_name(f".{FILE}.partial")
        with beside.open("w", encoding="utf-8") as out:
            json.dump([{"url": one.url, "name": one.name, "folder": one.folder} for one in leftovers], out)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(self._file)
        place = os.open(self._file.parent, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)
