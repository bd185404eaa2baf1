"""The endpoints of a recipe: who is asked, and how their fingerprints get into the tree."""

from collections.abc import Mapping
from dataclasses import replace

from evomerge.recipe.tree import Endpoint, Ensemble, Recipe


def asked_of(recipe: Recipe) -> tuple[Endpoint, ...]:
    """Return the endpoints that a recipe asks, each once and in their order."""
    match recipe:
        case Endpoint():
            return (recipe,)
        case Ensemble():
            return tuple(dict.fromkeys(item.recipe for item in recipe.members))
        case _:
            return ()


def with_endpoints(recipe: Ensemble, fingerprints: Mapping[str, str]) -> Ensemble:
    """Return the ensemble with the fingerprint of every endpoint put in, by its name."""
    known = (
        replace(item, recipe=Endpoint(item.recipe.name, fingerprints[item.recipe.name])) for item in recipe.members
    )
    return replace(recipe, members=tuple(known))
