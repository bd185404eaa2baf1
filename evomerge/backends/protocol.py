"""What a backend is: it holds a recipe's model and answers requests exactly as that model would.

Holding is separate from asking, so that slots, cancelling and unloading have a place. `Model.answer` takes one batch:
which requests share a batch is decided by the caller from the task and the round alone, so that no score depends on
what happened to be cached.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from evomerge.exchange import Answer, Request
from evomerge.recipe.tree import Recipe


@dataclass(frozen=True, slots=True)
class Placement:
    """How a recipe will be held: in words for a person, with the memory it takes.

    `dtype` is what its model computes in, where that can be known: scores of two dtypes do not mix.
    """

    summary: str
    memory_bytes: int
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Why a recipe cannot be held by this backend, as a sentence that says what can be done about it."""

    reason: str


class Model(Protocol):
    """A recipe that can be asked."""

    def answer(self, requests: Sequence[Request]) -> AsyncIterator[tuple[int, Answer]]:
        """Answer one batch; yields (index into `requests`, answer) as answers come, each index once."""
        ...


class Backend(Protocol):
    """Where recipes are held. Created once for a study, closed at its end."""

    @property
    def slots(self) -> int:
        """How many recipes can be held at the same time."""
        ...

    @property
    def batch_size(self) -> int | None:
        """How many requests a batch should have; None when the whole round is best sent at once."""
        ...

    def plan(self, recipe: Recipe) -> Placement | Unsupported:
        """Say, before anything is spent, whether and how the recipe can be held."""
        ...

    def hold(self, recipe: Recipe) -> AbstractAsyncContextManager[Model]:
        """Hold the recipe, waiting for a free slot; leaving the context cancels what is asked and frees the slot.

        Raises CandidateError when this recipe cannot be, BackendError when the backend failed.
        """
        ...

    async def close(self) -> None:
        """Free everything. Calling it twice is harmless."""
        ...
