"""The recipes a winner must beat: the base, each model alone, their uniform average, and TIES as published; of an
ensemble each endpoint alone, and a vote in which all count the same.

Derived from the job's recipe alone. They are trials like any other, but no strategy proposed them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Literal

from evomerge.recipe.endpoints import asked_of
from evomerge.recipe.holes import Hole
from evomerge.recipe.served import ServedInput, ServedMerge
from evomerge.recipe.tree import (
    Endpoint,
    Ensemble,
    Input,
    Member,
    Merge,
    Recipe,
    Source,
    Stack,
    WeightRecipe,
    children,
    is_part,
    sources,
)
from evomerge.recipe.values import Params, is_open


@dataclass(frozen=True, slots=True)
class Baseline:
    """A named recipe to compare with. `kind` tells single models from merges."""

    name: str
    kind: Literal["base", "single", "merge"]
    recipe: Recipe


def baselines(template: Recipe, is_adapter: Callable[[Source], bool]) -> list[Baseline]:
    """Return the baselines of a recipe with holes.

    Of an input that is searched itself, each of its models alone is one. An adapter alone means its base with it, at
    weight 1; where that base is searched, there is no such model.
    """
    match template:
        case Merge():
            return _of_merge(template, is_adapter)
        case Stack():
            return _of_stack(template, is_adapter)
        case Ensemble():
            return _of_ensemble(template)
        case ServedMerge():
            return _of_served(template)
        case Source() | Endpoint():
            return []


def _of_ensemble(template: Ensemble) -> list[Baseline]:
    """Return each endpoint alone and, where there are several, their vote with one weight."""
    endpoints = asked_of(template)
    found = [Baseline(endpoint.name, "single", endpoint) for endpoint in endpoints]
    if len(endpoints) > 1:
        vote = Ensemble("vote", tuple(Member(endpoint) for endpoint in endpoints))
        found.append(Baseline("uniform vote", "merge", vote))
    return found


def _of_served(template: ServedMerge) -> list[Baseline]:
    """Return the service's base, each adapter alone at weight 1 and, where there are several, their uniform sum."""

    def merge(*inputs: ServedInput) -> ServedMerge:
        return ServedMerge("linear", inputs, service=template.service)

    found = [Baseline("base", "base", merge())]
    for index, item in enumerate(template.inputs):
        name = item.adapter.id if item.adapter.id != "base" else f"{item.adapter.id} ({index + 1})"
        found.append(Baseline(name, "single", merge(ServedInput(item.adapter, {"weight": 1.0}))))
    if (count := len(template.inputs)) > 1:
        average = merge(*(ServedInput(item.adapter, {"weight": 1 / count}) for item in template.inputs))
        found.append(Baseline("uniform average", "merge", average))
    return found


def _of_stack(template: Stack, is_adapter: Callable[[Source], bool]) -> list[Baseline]:
    """Return each whole model that layers are taken from."""
    found: dict[str, WeightRecipe] = {}
    for recipe in dict.fromkeys(source for source in sources(template) if not is_adapter(source)):
        name = _name(recipe, len(found))
        found[name if name not in found else f"{name} ({len(found) + 1})"] = recipe
    return [Baseline(name, "single", recipe) for name, recipe in found.items()]


def _of_merge(template: Merge, is_adapter: Callable[[Source], bool]) -> list[Baseline]:
    base = template.base if template.base is not None and not has_holes(template.base) else None
    fixed = [item.recipe for item in template.inputs if not has_holes(item.recipe)]
    found = [Baseline("base", "base", _whole(base))] if base is not None else []
    singles: dict[str, WeightRecipe] = {}
    for index, (recipe, below) in enumerate(_models(template)):
        name = _name(recipe, index)
        alone: WeightRecipe | None = recipe
        if isinstance(recipe, Source) and is_adapter(recipe):
            alone = None if below is None else Merge("task_arithmetic", (Input(recipe),), below)
        if alone is not None:
            singles[name if name not in singles and name != "base" else f"{name} ({index + 1})"] = alone
    found += [Baseline(name, "single", recipe) for name, recipe in singles.items()]
    if len(fixed) == len(template.inputs) and len(fixed) > 1:
        inputs = tuple(Input(recipe) for recipe in fixed)
        average = Merge("linear", inputs, base, result=template.result)
        found.append(Baseline("uniform average", "merge", average))
        if base is not None:
            found.append(Baseline("ties (published defaults)", "merge", replace(average, method="ties")))
    return found


def _models(merge: Merge) -> list[tuple[WeightRecipe, WeightRecipe | None]]:
    """Return what a merge combines, each with its base: its inputs, and in place of a searched one what that combines.

    A model of a searched input that stands there twice, or at the top as well, is one.
    """
    base = merge.base if merge.base is not None and not has_holes(merge.base) else None
    found: list[tuple[WeightRecipe, WeightRecipe | None]] = []
    for item in merge.inputs:
        if isinstance(item.recipe, Merge) and has_holes(item.recipe):
            found += [model for model in _models(item.recipe) if model not in found]
        else:
            found.append((_whole(item.recipe), base))
    return found


def _whole(recipe: WeightRecipe) -> WeightRecipe:
    """Return the model that a recipe takes some layers of, and others as they are."""
    return recipe.slices[0].recipe if isinstance(recipe, Stack) and is_part(recipe) else recipe


def has_holes(recipe: Recipe) -> bool:
    """Return whether anything in a recipe is still open."""
    match recipe:
        case Source() | Endpoint():
            return False
        case Ensemble():
            params = (recipe.params, *(item.params for item in recipe.members))
            return isinstance(recipe.combiner, Hole) or any(map(_any_hole, params))
        case ServedMerge():
            return any(map(_any_hole, (recipe.params, *(item.params for item in recipe.inputs))))
        case Merge():
            params = (recipe.params, *(item.params for item in recipe.inputs))
            own = isinstance(recipe.method, Hole) or any(map(_any_hole, params))
        case Stack():
            own = any(isinstance(item.scale, Hole) for item in recipe.slices)
    return own or any(has_holes(child) for _, child in children(recipe))


def _any_hole(params: Params) -> bool:
    return any(map(is_open, params.values()))


def _name(recipe: Recipe, index: int) -> str:
    if isinstance(recipe, Source):
        return PurePath(recipe.model).name or f"model {index + 1}"
    return f"model {index + 1}"
