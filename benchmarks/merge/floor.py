"""The floor of merging: a compiled pass that reads every byte of some files once and writes a result of one's size.

It does as little as can be done with the bytes it reads (it combines them by exclusive or), so a merge of the same
files with as many threads can take less only by chance. Files are mapped into memory and stay mapped, and the result's
memory is written again and again, as in a search that merges candidate after candidate. Threads take pieces as they
come, so that one that has to wait for a busy core holds up no other.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_PIECE = 1 << 20  # words of 8 bytes


class Floor:
    """One to four files of one size, mapped into memory, and a place for the result."""

    def __init__(self, files: Sequence[Path], threads: int) -> None:
        self._inputs = tuple(mapped(file) for file in files)
        self._result = np.zeros_like(self._inputs[0])
        self._pool = ThreadPoolExecutor(threads)

    def run(self, models: int) -> float:
        """Return the seconds of one pass over the first `models` files."""
        begin = time.perf_counter()
        for _ in self._pool.map(self._piece(models), range(0, self._result.size, _PIECE)):
            pass
        return time.perf_counter() - begin

    def result(self) -> Words:
        """Return what the last pass wrote."""
        return self._result

    def _piece(self, models: int) -> Callable[[int], None]:
        combine, inputs, result = _COMBINE[models], self._inputs[:models], self._result

        def work(begin: int) -> None:
            piece = slice(begin, begin + _PIECE)
            combine(result[piece], *(words[piece] for words in inputs))

        return work


def mapped(file: Path) -> Words:
    """Return a file as words of 8 bytes, without the up to 7 bytes that are left over."""
    return cast(Words, np.memmap(file, dtype=np.uint64, mode="r", shape=(file.stat().st_size // 8,)).view(np.ndarray))


@njit(nogil=True)
def _one(result: Words, a: Words) -> None:
    for at in range(result.size):
        result[at] = a[at]


@njit(nogil=True)
def _two(result: Words, a: Words, b: Words) -> None:
    for at in range(result.size):
        result[at] = a[at] ^ b[at]


@njit(nogil=True)
def _three(result: Words, a: Words, b: Words, c: Words) -> None:
    for at in range(result.size):
        result[at] = a[at] ^ b[at] ^ c[at]


@njit(nogil=True)
def _four(result: Words, a: Words, b: Words, c: Words, d: Words) -> None:
    for at in range(result.size):
        result[at] = a[at] ^ b[at] ^ c[at] ^ d[at]


_COMBINE: dict[int, Callable[..., None]] = {1: _one, 2: _two, 3: _three, 4: _four}
