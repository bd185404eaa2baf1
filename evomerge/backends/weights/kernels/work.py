"""One tensor to be merged by a kernel: where it is read, where it is written, and what is kept about it.

Large tensors are worked on in pieces by several threads. What kernels are told is float32, as what they compute.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from evomerge.backends.weights.kernels.threads import Threads, spans
from evomerge.strategies.merge.protocol import Along, Method, Parameters, TensorContext

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evomerge.backends.weights.kernels.histograms import Histogram
    from evomerge.backends.weights.kernels.numbers import Elements

R = TypeVar("R")

UNIT = 1 << 19
"""Elements that a thread works on at a time: large beside the price of a call, small beside a tensor."""

_LARGEST = {"uint16": 0x7F7F7FFF, "int16": 0x477FEFFF, "float32": 0x7F7FFFFF}


@dataclass(frozen=True)
class Work:
    """A tensor of rows of `columns` elements; `out` is written.

    `histogram` returns the magnitudes of an input's difference to the base, by its index, and `products` the inner
    products of a mixture's vectors: both do not depend on parameters, and are kept by whoever provides them.
    """

    method: Method
    ctx: TensorContext
    params: Parameters
    base: "Elements | None"
    inputs: "tuple[Elements, ...]"
    columns: int
    out: "Elements"
    threads: Threads
    histogram: "Callable[[int], Histogram]"
    products: "Callable[[Along], NDArray[np.float64]]"

    @property
    def origin(self) -> "Elements":
        """The base. Raises ValueError where there is none: the recipe's check comes before any tensor is merged."""
        if self.base is None:
            raise ValueError(f"{self.method.name} needs a base")
        return self.base

    @property
    def largest(self) -> np.float32:
        """The largest number that does not become infinite when it is stored."""
        return np.uint32(_LARGEST[self.out.dtype.name]).view(np.float32)

    def over(self, kernel: Callable[[int, int], int], cuts: Sequence[int] = (), step: int = UNIT) -> int:
        """Call `kernel(begin, end)` for all pieces of at most `step` elements, none of which goes across a cut.

        Returns the sum of what the kernel returns.
        """
        return sum(self.gather(kernel, cuts, step))

    def gather(self, kernel: Callable[[int, int], R], cuts: Sequence[int] = (), step: int = UNIT) -> list[R]:
        """Return what `kernel(begin, end)` returns for the pieces of `over`, in their order."""
        ends = sorted({0, *cuts, self.out.size})
        pieces = [
            (start + begin, start + end) for start, stop in pairwise(ends) for begin, end in spans(stop - start, step)
        ]
        return self.threads.map(kernel, pieces)


def floats(numbers: "Sequence[float] | NDArray[np.float64]") -> tuple[np.float32, ...]:
    """Return numbers as kernels take them."""
    return tuple(np.float32(number) for number in numbers)
