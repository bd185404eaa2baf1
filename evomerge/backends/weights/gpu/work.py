"""One tensor to be merged on a device: what is read, what is written, and what is kept about it."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from evomerge.backends.weights.gpu.batches import Job, Variant
from evomerge.backends.weights.gpu.histograms import DeviceHistogram
from evomerge.backends.weights.gpu.jit import runs_on
from evomerge.backends.weights.gpu.numbers import ALIGNMENT, kind_of
from evomerge.backends.weights.statistics import Statistics
from evomerge.strategies.merge.protocol import Method, Parameters, TensorContext

if TYPE_CHECKING:
    from torch import Tensor

R = TypeVar("R")


@dataclass(frozen=True)
class DeviceMerge:
    """What a method is to make of one tensor of a base and of inputs, and where: all of one shape, on one device.

    `identity` says what base (None where there is none) and inputs are, in this order.
    """

    method: Method
    ctx: TensorContext
    params: Parameters
    base: "Tensor | None"
    inputs: "tuple[Tensor, ...]"
    out: "Tensor"
    identity: tuple[Hashable, ...]


@dataclass(frozen=True)
class DeviceWork:
    """A merge, and the statistics that serve it."""

    merge: DeviceMerge
    statistics: Statistics

    @property
    def params(self) -> Parameters:
        """The method's parameters."""
        return self.merge.params

    @property
    def ctx(self) -> TensorContext:
        """Which tensor it is; its shape is told."""
        return replace(self.merge.ctx, shape=tuple(self.merge.out.shape))

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.merge.out.numel()

    @property
    def columns(self) -> int:
        """The elements of a row."""
        shape = self.merge.out.shape
        return math.prod(shape[1:]) if len(shape) > 1 else self.size

    @property
    def base(self) -> "Tensor | None":
        """The base, if there is one and the method uses it."""
        return None if self.merge.method.needs.base == "unused" else self.merge.base

    @property
    def inputs(self) -> "tuple[Tensor, ...]":
        """The inputs."""
        return self.merge.inputs

    @property
    def readable(self) -> bool:
        """Whether kernels can read and write these tensors where they are."""
        tensors = (self.merge.out, *self.inputs) if self.base is None else (self.merge.out, self.base, *self.inputs)
        return runs_on(self.merge.out.device) and all(
            tensor.is_contiguous() and kind_of(tensor.dtype) is not None for tensor in tensors
        )

    def origin(self) -> "Tensor":
        """Return the base. Raises ValueError where there is none: the recipe's check comes before any merge."""
        if self.merge.base is None:
            raise ValueError(f"the base of {self.merge.ctx.name} is missing")
        return self.merge.base

    def floats(self) -> "tuple[Tensor | None, list[Tensor]]":
        """Return base and inputs as a formula takes them."""
        return None if self.base is None else self.base.float(), [tensor.float() for tensor in self.inputs]

    def keep(self, kind: str, of: Sequence[int], make: Callable[[], R], size: Callable[[R], int]) -> R:
        """Return what is known of this tensor of the base, if it is used, and of some inputs, by their indices."""
        base, *inputs = self.merge.identity
        key = (
            self.merge.ctx.name,
            str(self.merge.out.device),
            None if self.base is None else base,
            *(inputs[index] for index in of),
        )
        return self.statistics.get(f"{kind} on the device", key, make, size)

    def histogram(self, index: int) -> DeviceHistogram:
        """Return the magnitudes of an input's difference to the base, made once a study."""
        return self.keep(
            "histogram",
            (index,),
            lambda: DeviceHistogram.of(self.origin(), self.inputs[index]),
            lambda found: found.bytes,
        )

    def job(
        self,
        how: str,
        rule: str,
        models: "Sequence[Tensor]",
        numbers: Sequence[float],
        *,
        based: bool = True,
        words: Sequence[int] = (),
        ends: Sequence[Sequence[int]] = (),
        kept: tuple[object, ...] = (),
    ) -> Job:
        """Return the rows for this tensor; what they mean is said at `batches.Job` and at the kernels."""
        out, base = self.merge.out, self.origin() if based else None
        addresses = [out.data_ptr(), 0 if base is None else base.data_ptr(), *(model.data_ptr() for model in models)]
        variant = Variant(
            (kind(out), 0 if base is None else kind(base), *(kind(model) for model in models)),
            not any(address % ALIGNMENT for address in addresses),
            how,
            rule,
        )
        return Job(variant, self.size, [self.size, *addresses, *words], numbers, ends, kept)


def kind(tensor: "Tensor") -> int:
    """Return how kernels are told a tensor's dtype. Raises TypeError for what they do not read."""
    found = kind_of(tensor.dtype)
    if found is None:
        raise TypeError(f"kernels do not read {tensor.dtype}")
    return found
