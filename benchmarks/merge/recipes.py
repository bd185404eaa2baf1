"""The recipes that are measured: one over the family for every method that there is, with values drawn anew."""

from dataclasses import replace

import numpy as np

from benchmarks.merge.family import Family
from evomerge.backends.weights.store import WeightStore
from evomerge.recipe.holes import Scalar
from evomerge.recipe.tree import Input, Merge, Source
from evomerge.strategies.merge.protocol import Method, Parameter


def recipe_of(method: Method, family: Family) -> Merge:
    """Return a recipe of the method's defaults over as many experts as it takes; paths are absolute."""
    base = None if method.needs.base == "unused" else Source(str(family.base))
    most = method.needs.inputs[1] or len(family.experts)
    if method.needs.base == "counted":
        most -= 1
    return Merge(method.name, tuple(Input(Source(str(expert))) for expert in family.experts[:most]), base)


def resolved(store: WeightStore, recipe: Merge, family: Family) -> Merge:
    """Return the recipe with its models opened, compared and given fingerprints, as a study does once."""
    found = store.resolve(recipe, family.base.parent)
    if not isinstance(found, Merge):
        raise TypeError("a merge stays a merge")
    store.check(found)
    return found


def drawn(recipe: Merge, method: Method, seed: int) -> Merge:
    """Return the recipe with new genes: every number in the middle half of the range that a search would use."""
    dice = np.random.default_rng(seed)
    inputs = tuple(
        replace(item, params={one.name: _value(one, dice) for one in method.parameters if one.of == "input"})
        for item in recipe.inputs
    )
    params = {one.name: _value(one, dice) for one in method.parameters if one.of == "merge"}
    return replace(recipe, inputs=inputs, params=params, seed=seed)


def models_of(recipe: Merge) -> int:
    """Return how many models a recipe reads."""
    return len(recipe.inputs) + (recipe.base is not None)


def _value(parameter: Parameter, dice: np.random.Generator) -> Scalar:
    low, high = parameter.low, parameter.high
    if low is None or high is None or isinstance(parameter.default, bool):
        return parameter.default
    value = low + (high - low) * dice.uniform(0.25, 0.75)
    return round(value) if isinstance(parameter.default, int) else value
