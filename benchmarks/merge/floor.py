"""The floor of merging: a compiled pass that reads every byte of some files once and writes a result of one's size.

It does as little as can be done with the bytes it reads (it combines them by exclusive or), so no merge of the same
files with as many threads can take less but by chance. Files are mapped into memory and stay mapped, and the result's
memory is written again and again, as in a search that merges candidate after candidate.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numba import njit, prange, set_num_threads  # pyright: ignore[reportUnknownVariableType]  # it has no types
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_BLOCK = 4096  # words of 8 bytes: a block of the result and of one input stay in a core's first cache


class Floor:
    """Files of one size, mapped into memory, and a place for the result."""

    def __init__(self, files: Sequence[Path], threads: int) -> None:
        """Map the files; at most as many `threads` as the machine has cores are used."""
        self._inputs = tuple(mapped(file) for file in files)
        self._result = np.zeros_like(self._inputs[0])
        self._threads = min(threads, os.cpu_count() or 1)

    @property
    def bytes(self) -> int:
        """Bytes that a pass over all files moves."""
        return sum(words.nbytes for words in self._inputs) + self._result.nbytes

    def run(self, models: int) -> float:
        """Return the seconds of one pass over the first `models` files."""
        set_num_threads(self._threads)
        begin = time.perf_counter()
        _combine(self._inputs[:models], self._result)
        return time.perf_counter() - begin

    def result(self) -> Words:
        """Return what the last pass wrote."""
        return self._result


def mapped(file: Path) -> Words:
    """Return a file as words of 8 bytes, without the up to 7 bytes that are left over."""
    return cast(Words, np.memmap(file, dtype=np.uint64, mode="r", shape=(file.stat().st_size // 8,)).view(np.ndarray))


@njit(parallel=True, nogil=True)
def _combine(inputs: tuple[Words, ...], result: Words) -> None:
    for block in prange((result.size + _BLOCK - 1) // _BLOCK):
        start = block * _BLOCK
        end = min(start + _BLOCK, result.size)
        for at in range(start, end):
            result[at] = inputs[0][at]
        for model in range(1, len(inputs)):
            for at in range(start, end):
                result[at] ^= inputs[model][at]
