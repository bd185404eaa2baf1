"""What a combiner is: the members' replies to one item in, the ensemble's reply out, and what it declares about itself.

A combiner is pure: the replies and its parameters decide. It sees one item at a time and asks nobody anything, so that
a candidate is scored on answers that are there already. Which scorer judges, and what a request costs, is somebody
else's business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from evomerge.recipe.holes import Scalar
from evomerge.strategies.merge.protocol import Parameter


@dataclass(frozen=True, slots=True)
class Reply:
    """What one member answered. `key` is equal for texts that mean the same to the scorer of the task."""

    text: str
    key: str


@dataclass(frozen=True, slots=True)
class CombinerParameters:
    """A combiner's parameters, defaults filled in: the ensemble's own, and those of each member."""

    ensemble: Mapping[str, Scalar]
    members: tuple[Mapping[str, Scalar], ...]

    def number(self, name: str) -> float:
        """Return a number of the ensemble."""
        return float(self.ensemble[name])

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return a number of every member, in their order."""
        return tuple(float(values[name]) for values in self.members)


class Combine(Protocol):
    """The rule: the members' replies to one item, in the members' order, None where one is missing."""

    def __call__(self, replies: Sequence[Reply | None], params: CombinerParameters, /) -> Reply | None:
        """Return the ensemble's reply, or None where it has none."""
        ...


@dataclass(frozen=True, slots=True)
class Combiner:
    """A registered combiner; its parameters are those of the `ensemble` or of each `member`."""

    name: str
    title: str
    parameters: tuple[Parameter, ...]
    source: str
    combine: Combine
