"""One tensor to be merged by a kernel: where it is read, where it is written, and what is kept about it.

What does not depend on parameters is kept by whoever provides `keep`. Large tensors are worked on in pieces by several
threads. What kernels are told is float32, as what they compute.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from evomerge.backends.weights.kernels.threads import Threads, spans
from evomerge.backends.weights.raw import Raw
from evomerge.strategies.merge.protocol import Method, Parameters, TensorContext

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from evomerge.backends.weights.kernels.numbers import Elements

R = TypeVar("R")

UNIT = 1 << 19
"""Elements that a thread works on at a time: large beside the price of a call, small beside a tensor."""

_LARGEST = {
    np.dtype(name): np.uint32(bits).view(np.float32)
    for name, bits in (("uint16", 0x7F7F7FFF), ("int16", 0x477FEFFF), ("float32", 0x7F7FFFFF))
}


class Keep(Protocol):
    """Returns what is kept of a kind for this tensor of the base and of some inputs, by their indices, or makes it."""

    def __call__(self, kind: str, of: Sequence[int], make: Callable[[], R], size: Callable[[R], int], /) -> R:
        """Return what `make` returns, now or once before; `size` tells its bytes. It must not depend on parameters."""
        ...


Room = Callable[[int, str], "NDArray[Any]"]
"""Returns an array for that many numbers of a dtype, in memory or in a file."""


@dataclass(frozen=True)
class Sources:
    """A tensor that is merged: that of the base, if there is one, and of every input. The context has its shape.

    Unless `lasting`, it is merged this once, and what is as large as the tensor itself is not worth keeping.
    """

    ctx: TensorContext
    raw_base: Raw | None
    raw_inputs: tuple[Raw, ...]
    threads: Threads
    keep: Keep
    room: Room
    lasting: bool = True

    @cached_property
    def inputs(self) -> "tuple[Elements, ...]":
        """The inputs."""
        return tuple(item.elements for item in self.raw_inputs)

    @property
    def origin(self) -> "Elements":
        """The base. Raises ValueError where there is none: the recipe's check comes before any tensor is merged."""
        if self.raw_base is None:
            raise ValueError(f"the base of {self.ctx.name} is missing")
        return self.raw_base.elements

    def pair(self, index: int) -> "tuple[Elements, Elements]":
        """Return base and input."""
        return self.origin, self.inputs[index]

    def tensors(self) -> "tuple[Tensor | None, list[Tensor]]":
        """Return base and inputs as a formula takes them."""
        base = None if self.raw_base is None else self.raw_base.float32()
        return base, [item.float32() for item in self.raw_inputs]


@dataclass(frozen=True)
class Work:
    """Sources, and where their merge is written: `out`, of rows of `columns` elements."""

    sources: Sources
    method: Method
    params: Parameters
    columns: int
    out: "Elements"

    @property
    def ctx(self) -> TensorContext:
        """Which tensor it is."""
        return self.sources.ctx

    @property
    def has_base(self) -> bool:
        """Whether there is a base, and the method uses it."""
        return self.sources.raw_base is not None

    @property
    def origin(self) -> "Elements":
        """The base."""
        return self.sources.origin

    @property
    def inputs(self) -> "tuple[Elements, ...]":
        """The inputs."""
        return self.sources.inputs

    @property
    def largest(self) -> np.float32:
        """The largest number that does not become infinite when it is stored."""
        return _LARGEST[self.out.dtype]

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
        return self.sources.threads.map(kernel, pieces)


def floats(numbers: "Sequence[float] | NDArray[np.float64]") -> tuple[np.float32, ...]:
    """Return numbers as kernels take them."""
    return tuple(np.float32(number) for number in numbers)


Kernel = Callable[[Work], int]
"""Writes a tensor and returns zero if all of its elements are finite. Raises what the method's formula raises."""
