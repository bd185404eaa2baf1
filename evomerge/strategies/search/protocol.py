"""What a search strategy is: it proposes points of the unit cube and learns from their fitness.

A strategy is pure: its seed and the log so far (asks and tells, in order) decide everything it does. It touches no
disk, clock, network or global random state, and it does not know the budget: replaying the same log after a change of
budget gives the same asks. Fitness is maximised.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from evomerge.recipe.space import Vector


@dataclass(frozen=True, slots=True)
class Proposal:
    """A point to try.

    `id` counts the strategy's own proposals from 0; `stage` names the phase of a strategy that has several.
    """

    id: int
    vector: Vector
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a proposal.

    `objectives` are maximised (one number for a single objective), finite, and None unless `status` is "scored";
    `standard_error` belongs to the first objective; `items` is the number of items behind it.
    """

    id: int
    status: Literal["scored", "failed"]
    objectives: tuple[float, ...] | None = None
    standard_error: float | None = None
    items: int = 0
    scores: tuple[float, ...] = field(default=(), repr=False)


class Strategy(Protocol):
    """Ask, evaluate, tell. Every proposal that was asked is told once, in any order, before the search ends.

    Only the order of the single asks and tells matters: asking for three is asking three times for one, and telling
    three results is telling them one after the other.
    """

    @property
    def done(self) -> bool:
        """True when the strategy has nothing more to propose (an exhausted grid); `ask` then returns an empty list."""
        ...

    def ask(self, n: int) -> list[Proposal]:
        """Return up to `n` new proposals; fewer only when the strategy is done. A negative `n` is a ValueError."""
        ...

    def tell(self, results: Sequence[Result]) -> None:
        """Learn.

        An unknown id, one told twice, or a scored result without a finite fitness is a ValueError; nothing of the call
        is then learnt.
        """
        ...

    def finalists(self) -> list[Vector]:
        """Return what it believes best beyond single trials: the centre of its distribution, or nothing."""
        ...
