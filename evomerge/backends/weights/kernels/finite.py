"""Looking for what is no finite number, as fast as a tensor can be read."""

import numpy as np

from evomerge.backends.weights.kernels.jit import compiled
from evomerge.backends.weights.kernels.numbers import Elements, load
from evomerge.backends.weights.kernels.threads import Threads, spans

_UNIT = 1 << 20
_LARGEST = np.finfo(np.float32).max


def all_finite(elements: Elements, threads: Threads) -> bool:
    """Return whether a tensor of floats holds neither NaN nor infinity."""
    return not any(threads.map(lambda begin, end: _bad(elements[begin:end]), spans(elements.size, _UNIT)))


@compiled
def _bad(elements: Elements) -> int:
    bad = 0
    for k in range(elements.size):
        bad += 0 if abs(load(elements, k)) <= _LARGEST else 1
    return bad
