"""Merges that a service makes: it holds adapters beside a base, and combines them on request.

No weights are read here or anywhere else of ours: an adapter is known by its id at the service, and by what the service
tells of it. What a method does with weights and densities is the service's own; which there are is known to backends.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from evomerge.recipe.values import Params, Value


@dataclass(frozen=True, slots=True)
class ServedAdapter:
    """An adapter that a service holds, under its id there.

    `fingerprint` is a hash of what the service tells of its base and of this adapter, empty until it was asked.
    """

    id: str
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class ServedInput:
    """One adapter that goes into a service's merge, with the parameters that are its own (weight)."""

    adapter: ServedAdapter
    params: Params = field(default_factory=dict[str, Value])


@dataclass(frozen=True, slots=True)
class ServedMerge:
    """Have a service merge adapters that it holds and put the result beside its base; without inputs, the base alone.

    `service` is a hash of what the service tells of its base, empty until it was asked.
    """

    method: str
    inputs: tuple[ServedInput, ...]
    params: Params = field(default_factory=dict[str, Value])
    service: str = ""

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the adapters, in their order."""
        return tuple(item.adapter.id for item in self.inputs)


def with_fingerprints(recipe: ServedMerge, service: str, adapters: Mapping[str, ServedAdapter]) -> ServedMerge:
    """Return the merge with what a service told put in: itself, and each adapter by the id that the recipe has for it.

    Raises KeyError for an id that is not among `adapters`.
    """
    inputs = tuple(replace(item, adapter=adapters[item.adapter.id]) for item in recipe.inputs)
    return replace(recipe, inputs=inputs, service=service)
