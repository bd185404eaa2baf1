"""nevergrad's optimizers behind our protocol, and the one place that touches them.

An optimizer is given neither a budget nor a number of workers (both would change what it asks), and draws from a
random state of its own. Vectors are the optimizer's points clipped to the unit cube, so the ends of a range are reached
exactly. nevergrad minimises; the sign is turned here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from evomerge.recipe.space import Vector
from evomerge.strategies.search.ledger import Ledger

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FAILED_LOSS = 1e18
"""What an optimizer that only compares is told of a failed proposal: worse than any score, and finite."""

Failures = Literal["worse than all", "as the worst"]


class Candidate(Protocol):
    """A point of nevergrad's."""

    @property
    def value(self) -> "NDArray[np.float64]":
        """Its coordinates, in our units."""
        ...


class Optimizer(Protocol):
    """What we use of a nevergrad optimizer."""

    @property
    def parametrization(self) -> Any:
        """The description of its points, which makes new ones."""
        ...

    def ask(self) -> Candidate:
        """Return a new point."""
        ...

    def tell(self, candidate: Candidate, loss: float | list[float]) -> None:
        """Learn from a point, its own or a foreign one."""
        ...

    def recommend(self) -> Candidate:
        """Return what it would answer now."""
        ...


class NevergradSearch(Ledger):
    """A strategy around one of nevergrad's optimizers.

    `genes` is the length of a vector; an optimizer may have more dimensions than that, which stay unused. Failed
    proposals are told as worse than all others to an optimizer that only compares. One that ranks or averages is told
    the worst loss so far, and nothing before there is one: a generation of failures alone would send it anywhere.
    """

    def __init__(self, optimizer: Optimizer, genes: int, first: Sequence[Vector], failures: Failures) -> None:
        super().__init__(first)
        self._optimizer = optimizer
        self._genes = genes
        self._failures = failures
        self._candidates: dict[int, Candidate] = {}
        self._worst: float | None = None
        self._waiting: list[Candidate] = []

    def _propose(self, number: int) -> Vector:
        candidate = self._optimizer.ask()
        self._candidates[number] = candidate
        return self._vector(candidate)

    def _learn(self, number: int, vector: Vector, objectives: tuple[float, ...] | None) -> None:
        fitness = None if objectives is None else objectives[0]
        candidate = self._candidates.pop(number, None)
        if candidate is None:
            candidate = foreign(self._optimizer, vector)
        if fitness is not None:
            self._worst = -fitness if self._worst is None else max(self._worst, -fitness)
            self._tell(candidate, -fitness)
            while self._waiting:
                self._tell(self._waiting.pop(0), self._worst)
        elif self._failures == "worse than all":
            self._tell(candidate, FAILED_LOSS)
        elif self._worst is not None:
            self._tell(candidate, self._worst)
        else:
            self._waiting.append(candidate)

    def _tell(self, candidate: Candidate, loss: float | list[float]) -> None:
        import numpy as np

        with np.errstate(all="ignore"):  # a flat fitness makes statistics of 0/0, which the optimizers survive
            self._optimizer.tell(candidate, loss)

    def _vector(self, candidate: Candidate) -> Vector:
        import numpy as np

        return tuple(np.clip(candidate.value, 0.0, 1.0)[: self._genes].tolist())


def box(start: Vector, seed: int, *, sigma: float, bounded: bool) -> Any:
    """Return nevergrad's description of points around `start`, with its own seeded random state.

    `sigma` is the unit of its steps. A bounded box clips points in place, so the optimizer learns from the clipped
    ones, and draws first populations evenly from the whole cube; an unbounded one leaves clipping to us.
    """
    import nevergrad as ng
    import numpy as np

    array: Any = ng.p.Array(init=np.array(start, dtype=np.float64)).set_mutation(sigma=sigma)
    array.random_state = np.random.RandomState(seed)  # before the bounds, which would seed one from the global state
    if bounded:
        array.set_bounds(0.0, 1.0, method="clipping", full_range_sampling=True)
    return array


def foreign(optimizer: Optimizer, vector: Vector) -> Candidate:
    """Return a point that the optimizer did not propose itself; dimensions without a gene stay where they start."""
    import numpy as np

    point: NDArray[np.float64] = np.array(optimizer.parametrization.value, dtype=np.float64)
    point[: len(vector)] = vector
    return optimizer.parametrization.spawn_child(new_value=point)
