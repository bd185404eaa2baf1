"""What a kind of service has to say: which merges it makes, how they are asked for, and how it answers.

One class a kind. What it cannot do is said before the start, from what it tells (`refusal`) or by one small request
(`trial`). Candidates are asked one after the other: none of the services batches the requests of two of them for free.
"""

from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from evomerge.backends.services.offer import Offer
from evomerge.exchange import Answer, Request
from evomerge.recipe.served import ServedMerge
from evomerge.recipe.values import Value

Ask = Callable[[Request], Awaitable[Answer]]
"""Asks a held merge one request. Raises Fault."""


class Dialect(Protocol):
    """One kind of service, at the end of a line."""

    @property
    def title(self) -> str:
        """What people call it."""
        ...

    async def offer(self) -> Offer:
        """Return what the service tells of itself. Raises Fault."""
        ...

    def refusal(self, recipe: ServedMerge, offer: Offer) -> str | None:
        """Return why the service cannot make a merge without holes, as far as its documentation tells; else None."""
        ...

    async def trial(self, recipe: ServedMerge, offer: Offer) -> str | None:
        """Return why the service does not make a merge, found out by asking for it; None where it does."""
        ...

    def manner(self, recipe: ServedMerge) -> str:
        """Say how the service makes a merge, for people."""
        ...

    def hold(self, recipe: ServedMerge, offer: Offer) -> AbstractAsyncContextManager[Ask]:
        """Hold a merge that can be asked; leaving takes back what was given to the service for it.

        Raises CandidateError where this merge cannot be, Fault where the service refuses or fails.
        """
        ...

    async def clear(self) -> None:
        """Take back what an earlier process left at the service. Raises Fault."""
        ...


def number(value: Value) -> float:
    """Return a parameter that is filled in. Raises TypeError for a hole."""
    if not isinstance(value, float | int):
        raise TypeError(f"{value!r} is no number; a recipe with holes is merged by nobody")
    return float(value)


def weights_of(recipe: ServedMerge) -> list[float]:
    """Return the weights of a merge, in the order of its adapters."""
    return [number(item.params.get("weight", 1.0)) for item in recipe.inputs]


def refused_parameters(recipe: ServedMerge, title: str, methods: AbstractSet[str], *, own_density: bool) -> str | None:
    """Return why a kind of service cannot make a merge that has this method or these parameters; else None."""
    if recipe.method not in methods:
        return f"{title} has no {recipe.method} for adapters, only {' and '.join(sorted(methods))}; change recipe.method"
    with_density = next((item.adapter.id for item in recipe.inputs if "density" in item.params), None)
    if with_density is None or own_density:
        return None
    one = "takes one density for all adapters, beside method" if len(methods) > 1 else "keeps every entry of an adapter"
    return f"{title} {one}, and '{with_density}' has a density of its own; remove it there"
