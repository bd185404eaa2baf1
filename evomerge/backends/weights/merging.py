"""One tensor of one merge, from tensors as they are stored: by a kernel where the method has one, else by its formula.

Both compute in float32 and round once, when the result is written. What does not depend on parameters is taken from the
study's statistics.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge.backends.weights.statistics import Statistics
from evomerge.backends.weights.tensors import all_finite
from evomerge.strategies.merge.mixtures import products, shaped, vectors
from evomerge.strategies.merge.protocol import Along, Method, Parameters, Stage, Summary, TensorContext
from evomerge.strategies.merge.whole import OfInputs, delta_magnitudes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from evomerge.backends.weights.kernels.histograms import Histogram

_KERNEL_TYPES = ("torch.bfloat16", "torch.float16", "torch.float32")


@dataclass(frozen=True)
class TensorMerge:
    """What a method makes of one tensor of a base and of inputs, which may be views of files, of any dtype.

    `identity` says what base (None where there is none) and inputs are, in this order.
    """

    method: Method
    ctx: TensorContext
    params: Parameters
    base: "Tensor | None"
    inputs: "tuple[Tensor, ...]"
    identity: tuple[Hashable, ...]
    statistics: Statistics

    def into(self, out: "Tensor") -> bool:
        """Write the merged tensor into `out` and return whether all of it is finite.

        Raises what the method's formula raises.
        """
        kernel = self._kernel(out)
        if kernel is not None:
            return kernel()
        out.copy_(self.method.apply(self.ctx, _float(self.base), self._floats, self.params))
        return all_finite(out)

    def summary(self, stage: Stage) -> Summary:
        """Return what a stage finds in this tensor; where histograms are kept that tell it, nothing is read."""
        if stage is delta_magnitudes and self._readable:
            return OfInputs(tuple(self.histogram(index).magnitudes for index in range(len(self.inputs))))
        return stage(self.ctx, _float(self.base), self._floats)

    def histogram(self, index: int) -> "Histogram":
        """Return the magnitudes of an input's difference to the base."""
        from evomerge.backends.weights.kernels.histograms import Histogram
        from evomerge.backends.weights.kernels.numbers import elements

        base = self.base
        if base is None:
            raise ValueError(f"{self.method.name} needs a base")

        def make() -> Histogram:
            return Histogram.of(elements(base), elements(self.inputs[index]), self.statistics.threads)

        key = (self.ctx.name, self.identity[0], self.identity[1 + index])
        return self.statistics.get("histogram", key, make, lambda found: found.bytes)

    def products(self, along: Along) -> "NDArray[np.float64]":
        """Return the inner products that a mixture's weights follow from."""
        mixed = self.method.mixture
        if mixed is None:
            raise ValueError(f"{self.method.name} is no mixture")

        def make() -> "NDArray[np.float64]":
            return products(vectors(mixed, _float(self.base), self._floats), along)

        key = (self.ctx.name, mixed.of, along, self.identity)
        return self.statistics.get("products", key, make, lambda found: found.nbytes)

    def _kernel(self, out: "Tensor") -> Callable[[], bool] | None:
        """Return what writes into `out`, or None where no kernel does, for the method, the device or a dtype."""
        if not out.numel() or not self._readable or not _is_readable(out):
            return None
        from evomerge.backends.weights.kernels.methods import kernel_of
        from evomerge.backends.weights.kernels.numbers import elements
        from evomerge.backends.weights.kernels.work import Work

        kernel = kernel_of(self.method)
        if kernel is None:
            return None
        work = Work(
            method=self.method,
            ctx=shaped(self.ctx, out),
            params=self.params,
            base=None if self.base is None else elements(self.base),
            inputs=tuple(map(elements, self.inputs)),
            columns=out[0].numel() if out.dim() > 1 else out.numel(),
            out=elements(out),
            threads=self.statistics.threads,
            histogram=self.histogram,
            products=self.products,
        )
        return lambda: kernel(work) == 0

    @property
    def _floats(self) -> "list[Tensor]":
        return [tensor.float() for tensor in self.inputs]

    @property
    def _readable(self) -> bool:
        return all(_is_readable(tensor) for tensor in (self.base, *self.inputs) if tensor is not None)


def _float(tensor: "Tensor | None") -> "Tensor | None":
    return None if tensor is None else tensor.float()


def _is_readable(tensor: "Tensor") -> bool:
    return tensor.device.type == "cpu" and str(tensor.dtype) in _KERNEL_TYPES and tensor.is_contiguous()
