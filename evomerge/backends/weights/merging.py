"""One tensor of one merge, from tensors as they are stored: by a kernel where the method has one, else by its formula.

Both compute in float32 and round once, when the result is written. What does not depend on parameters is taken from the
study's statistics. Only formulas need torch.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from evomerge.backends.weights.raw import Raw
from evomerge.backends.weights.statistics import Statistics
from evomerge.backends.weights.tensors import all_finite
from evomerge.strategies.merge.protocol import Method, Parameters, Stage, Summary, TensorContext

if TYPE_CHECKING:
    from torch import Tensor

    from evomerge.backends.weights.kernels.work import Sources

R = TypeVar("R")


@dataclass(frozen=True)
class TensorMerge:
    """What a method makes of one tensor of a base and of inputs, which may be views of files, of any float dtype.

    `identity` says what base (None where there is none) and inputs are, in this order. Unless `lasting`, they are not
    merged again.
    """

    method: Method
    ctx: TensorContext
    params: Parameters
    base: Raw | None
    inputs: tuple[Raw, ...]
    identity: tuple[Hashable, ...]
    statistics: Statistics
    lasting: bool = True

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
        """Return what a stage finds in this tensor; where statistics are kept that tell it, nothing is read."""
        from evomerge.backends.weights.kernels.methods import summary_of

        found = summary_of(stage)
        return stage(self.ctx, self._base, self._floats) if found is None else found(self._sources)

    def keep(self, kind: str, of: Sequence[int], make: Callable[[], R], size: Callable[[R], int], /) -> R:
        """Return what is known of this tensor of the base, if it is used, and of some inputs, by their indices."""
        base = None if self.base is None else self.identity[0]
        key = (self.ctx.name, base, *(self.identity[1 + index] for index in of))
        return self.statistics.get(kind, key, make, size)

    def _kernel(self, out: Raw) -> Callable[[], bool] | None:
        """Return what writes into `out`, or None for a method without a kernel."""
        from evomerge.backends.weights.kernels.methods import kernel_of
        from evomerge.backends.weights.kernels.work import Work

        kernel = kernel_of(self.method)
        if kernel is None or not out.elements.size:
            return None
        columns = math.prod(out.shape[1:]) if len(out.shape) > 1 else out.elements.size
        work = Work(self._sources, self.method, self.params, columns, out.elements)
        return lambda: kernel(work) == 0

    @property
    def _sources(self) -> "Sources":
        from evomerge.backends.weights.kernels.work import Sources

        context, kept = replace(self.ctx, shape=self.inputs[0].shape), self.statistics
        return Sources(context, self.base, self.inputs, kept.threads, self.keep, kept.scratch.room, self.lasting)

    @property
    def _floats(self) -> "list[Tensor]":
        return [item.float32() for item in self.inputs]

    @property
    def _base(self) -> "Tensor | None":
        return None if self.base is None else self.base.float32()
