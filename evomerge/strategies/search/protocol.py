"""What a search strategy is: it proposes points of the unit cube and learns from their fitness.

A strategy is pure: its seed and the log so far (asks and tells, in order) decide everything it does. It touches no
disk, clock, network or global random state, and it does not know the budget: replaying the same log after a change of
budget gives the same asks. Fitness is maximised.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pydantic import Field

from evomerge.recipe.settings import Settings
from evomerge.recipe.space import Gene, Vector

DEFAULT_STRATEGY = "cma"
LARGEST_SEED = 2**32 - 1


class StrategySettings(Settings):
    """What a strategy is told: which it is, and how it proposes. Whether it uses all of it, a job checks."""

    strategy: str = Field(default=DEFAULT_STRATEGY, examples=["cma", "de", "pso", "tbpsa", "random", "grid"])
    """How recipes are proposed: `cma`, `de`, `pso`, `tbpsa`, `random`, `grid`, or the name of a plugin's strategy."""

    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    """The same seed and the same scores give the same search."""

    first_step: float = Field(default=0.2, gt=0, le=1)
    """How far the first proposals lie from the start, as a standard deviation in units of each hole's range (`cma`)."""

    population: int | None = Field(default=None, ge=4, le=10_000)
    """Proposals a generation (`cma`, `de`, `pso`, `tbpsa`); without it, as many as the strategy takes by itself."""

    steps: int = Field(default=5, ge=2, le=1000)
    """Values a continuous hole takes in a `grid`, both ends included; whole numbers and choices take all of theirs."""


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


class Factory(Protocol):
    """Make a strategy for the genes, beginning at `start`; `suggestions` are its first proposals, in their order."""

    def __call__(
        self, settings: StrategySettings, genes: Sequence[Gene], start: Vector, suggestions: Sequence[Vector]
    ) -> Strategy:
        """Return the strategy; what the settings allow but the genes do not is a ConfigError."""
        ...
