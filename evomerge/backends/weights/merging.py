"""One tensor of one merge, from tensors as they are stored: by a kernel where the method has one, else by its formula.

Both compute in float32 and round once, when the result is written. What does not depend on parameters is taken from the
study's statistics.
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from evomerge.backends.weights.raw import Raw
from evomerge.backends.weights.statistics import Statistics
from evomerge.backends.weights.tensors import all_finite
from evomerge.strategies.merge.mixtures import products, vectors
from evomerge.strategies.merge.protocol import Along, Method, Parameters, Stage, Summary, TensorContext
from evomerge.strategies.merge.whole import OfInputs, delta_magnitudes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from evomerge.backends.weights.kernels.histograms import Histogram


@dataclass(frozen=True)
class TensorMerge:
    """What a method makes of one tensor of a base and of inputs, which may be views of files, of any float dtype.

    `identity` says what base (None where there is none) and inputs are, in this order.
    """

    method: Method
    ctx: TensorContext
    params: Parameters
    base: Raw | None
    inputs: tuple[Raw, ...]
    identity: tuple[Hashable, ...]
    statistics: Statistics

    def into(self, out: Raw) -> bool:
        """Write the merged tensor into `out` and return whether all of it is finite.

        Raises what the method's formula raises.
        """
        kernel = self._kernel(out)
        if kernel is not None:
            return kernel()
        result = out.tensor()
        result.copy_(self.method.apply(self.ctx, self._base, self._floats, self.params))
        return all_finite(result)

    def summary(self, stage: Stage) -> Summary:
        """Return what a stage finds in this tensor; where histograms are kept that tell it, nothing is read."""
        if stage is delta_magnitudes:
            return OfInputs(tuple(self.histogram(index).magnitudes for index in range(len(self.inputs))))
        return stage(self.ctx, self._base, self._floats)

    def histogram(self, index: int) -> "Histogram":
        """Return the magnitudes of an input's difference to the base."""
        from evomerge.backends.weights.kernels.histograms import Histogram

        base = self.base
        if base is None:
            raise ValueError(f"{self.method.name} needs a base")

        def make() -> Histogram:
            return Histogram.of(base.elements, self.inputs[index].elements, self.statistics.threads)

        key = (self.ctx.name, self.identity[0], self.identity[1 + index])
        return self.statistics.get("histogram", key, make, lambda found: found.bytes)

    def products(self, along: Along) -> "NDArray[np.float64]":
        """Return the inner products that a mixture's weights follow from."""
        mixed = self.method.mixture
        if mixed is None:
            raise ValueError(f"{self.method.name} is no mixture")

        def make() -> "NDArray[np.float64]":
            return products(vectors(mixed, self._base, self._floats), along)

        key = (self.ctx.name, mixed.of, along, self.identity)
        return self.statistics.get("products", key, make, lambda found: found.nbytes)

    def _kernel(self, out: Raw) -> Callable[[], bool] | None:
        """Return what writes into `out`, or None for a method without a kernel."""
        from evomerge.backends.weights.kernels.methods import kernel_of
        from evomerge.backends.weights.kernels.work import Work

        kernel = kernel_of(self.method)
        if kernel is None or not out.elements.size:
            return None
        work = Work(
            method=self.method,
            ctx=replace(self.ctx, shape=out.shape),
            params=self.params,
            base=None if self.base is None else self.base.elements,
            inputs=tuple(item.elements for item in self.inputs),
            columns=math.prod(out.shape[1:]) if len(out.shape) > 1 else out.elements.size,
            out=out.elements,
            threads=self.statistics.threads,
            histogram=self.histogram,
            products=self.products,
        )
        return lambda: kernel(work) == 0

    @property
    def _floats(self) -> "list[Tensor]":
        return [item.float32() for item in self.inputs]

    @property
    def _base(self) -> "Tensor | None":
        return None if self.base is None else self.base.float32()
