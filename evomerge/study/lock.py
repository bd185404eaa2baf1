"""One process at a time works on a study.

The lock is the operating system's (flock) on a file in the study's folder: it is gone with the process that held it,
however that process ended. The existence of the file means nothing.
"""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from evomerge.errors import ConfigError, StudyLocked


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold the study's lock. Raises StudyLocked at once when another process has it."""
    path = folder / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(
            f"{folder}: the study cannot be written to ({error.strerror}); check its permissions"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            who = f" (process {holder})" if holder else ""
            raise StudyLocked(f"{folder}: another process{who} works on this study; wait for it or stop it") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
