"""What methods have to know of the whole model, for every input: the summaries that stages add up.

Stages here are shared: one that several methods name is done once a study for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from evomerge.strategies.merge.magnitudes import Magnitudes
from evomerge.strategies.merge.protocol import Summary, TensorContext
from evomerge.strategies.merge.vectors import required

if TYPE_CHECKING:
    from torch import Tensor

One = TypeVar("One", bound=Summary)


@dataclass(frozen=True, slots=True)
class OfInputs(Generic[One]):
    """A summary of every input, in their order."""

    each: tuple[One, ...]

    def __add__(self, other: "OfInputs[One]") -> "OfInputs[One]":
        return OfInputs(tuple(own + others for own, others in zip(self.each, other.each, strict=True)))

    @property
    def nbytes(self) -> int:
        """The memory it takes, as far as the summaries tell."""
        return sum(int(getattr(one, "nbytes", 0)) for one in self.each)


def delta_magnitudes(ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]") -> OfInputs[Magnitudes]:  # noqa: ARG001  # the contract's arguments
    """Return the `Magnitudes` of every input's difference to the base."""
    origin = required(base)
    return OfInputs(tuple(Magnitudes.of(tensor - origin) for tensor in inputs))
