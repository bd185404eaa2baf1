"""Room for numbers that a study keeps and that may be more than memory should hold: in files that have no name.

The system writes them to the disk when memory is short, and drops them when nobody uses them any more. Where no such
file can be made, memory takes their place.
"""

import mmap
import os
import tempfile
from threading import local
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGE = 1 << 20
"""Bytes from which on an array is put into a file."""
_FILE = 256 << 20


class _Own(local):
    """What a thread uses again and again."""

    def __init__(self) -> None:
        self.arrays: dict[int, NDArray[np.uint8]] = {}


_OWN = _Own()


class Scratch:
    """Arrays one after the other in files of 256 MiB, or of the size of a larger array, in the temporary folder."""

    def __init__(self) -> None:
        self._file: mmap.mmap | None = None
        self._used = 0

    def room(self, count: int, dtype: str) -> "NDArray[Any]":
        """Return an array of some numbers, whatever they are."""
        kind = np.dtype(dtype)
        size = -(-count * kind.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
        if size < LARGE:
            return np.empty(count, kind)
        if self._file is None or self._used + size > len(self._file):
            try:
                self._file, self._used = _mapped(max(size, _FILE)), 0
            except OSError:
                return np.empty(count, kind)
        self._used += size
        return np.frombuffer(self._file, kind, count, self._used - size)


def passing_room(place: int, count: int, dtype: str) -> "NDArray[Any]":
    """Return an array of some numbers, whatever they are, till this thread asks for the same `place` again.

    The memory stays with the thread: that which the system has to clear first takes longer than most of what is done
    with it.
    """
    kind = np.dtype(dtype)
    own = _OWN.arrays.get(place)
    if own is None or own.nbytes < count * kind.itemsize:
        own = _OWN.arrays[place] = np.empty(count * kind.itemsize, np.uint8)
    return own[: count * kind.itemsize].view(kind)


def cost_of(array: "NDArray[Any]") -> int:
    """Return what an array counts where bytes of memory are counted: in a file a sixteenth, as disks are larger."""
    return array.nbytes if array.flags.owndata else array.nbytes // 16


def _mapped(size: int) -> mmap.mmap:
    with tempfile.TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, size)  # a disk that is full is told now, not when a page is written
        return mmap.mmap(file.fileno(), size)
