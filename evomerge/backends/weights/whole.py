"""What a method's stages find out about a whole model: once a study, tensor by tensor, in natural order.

The sum over all tensors is kept. The sum over those before one is added up again while the tensors are merged in their
order, for the few methods that ask for it: keeping one for every tensor would take more than the tensors.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from evomerge.backends.weights.statistics import Statistics
from evomerge.strategies.merge.protocol import Stage, Summary, TensorContext, Whole

Summarise = Callable[[Stage, TensorContext], Summary]
"""Returns what a stage finds in the tensor that the context names."""


@dataclass(frozen=True)
class Wholes:
    """The tensors of one merge that its stages are asked of; `identity` says what base and inputs are."""

    tensors: tuple[str, ...]
    identity: tuple[Hashable, ...]
    context: Callable[[str], TensorContext]
    summarise: Summarise
    statistics: Statistics

    def of(self, name: str, stages: Sequence[Stage]) -> tuple[Whole, ...]:
        """Return the results of stages as a tensor's method gets them."""
        found: tuple[Whole, ...] = ()
        for number, stage in enumerate(stages):
            earlier = stages[:number]
            key = (f"{stage.__module__}.{getattr(stage, '__qualname__', stage)}", self.tensors, self.identity)
            total = self.statistics.get("whole", key, partial(self._total, stage, earlier), _bytes)
            running = self.statistics.get("running", key, _Running, lambda _: 0)
            summary = partial(self._summary, stage, earlier)
            found = (*found, Whole(total, partial(running.before, name, self.tensors, summary)))
        return found

    def _total(self, stage: Stage, earlier: Sequence[Stage]) -> Summary:
        first, *others = self.tensors
        total = self._summary(stage, earlier, first)
        for name in others:
            total = total + self._summary(stage, earlier, name)
        return total

    def _summary(self, stage: Stage, earlier: Sequence[Stage], name: str) -> Summary:
        return self.summarise(stage, replace(self.context(name), whole=self.of(name, earlier)))


def _bytes(summary: Summary) -> int:
    return int(getattr(summary, "nbytes", 0))


class _Running:
    """The sum over the tensors before one, which goes on where it was asked for last."""

    def __init__(self) -> None:
        self._done = 0
        self._sum: Summary | None = None

    def before(self, name: str, tensors: Sequence[str], summary: Callable[[str], Summary]) -> Summary | None:
        place = tensors.index(name)
        if place < self._done:
            self._done, self._sum = 0, None
        for other in tensors[self._done : place]:
            added = summary(other)
            self._sum = added if self._sum is None else self._sum + added
        self._done = place
        return self._sum
