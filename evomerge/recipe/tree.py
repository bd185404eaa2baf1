"""The recipe: a frozen tree that says how models are combined.

A recipe without holes is a merge; a recipe with holes (a template) is a search space. Nothing here touches a disk: a
source is known by its path until somebody who can read it has put its fingerprint in. A recipe's id is a hash of its
canonical JSON in which sources stand with their fingerprints, so it is the same on every machine and in every process.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from evomerge.errors import ConfigError
from evomerge.recipe.holes import Hole

Scalar = float | int | str | bool


@dataclass(frozen=True, slots=True)
class Gradient:
    """A value that changes over depth: piecewise linear through `points`, from the first layer (0) to the last (1)."""

    points: tuple["float | int | Hole", ...]

    def at(self, depth: float) -> float:
        """Return the value at `depth` in [0, 1]."""
        values = [float(point) for point in self.points if not isinstance(point, Hole)]
        if len(values) != len(self.points):
            raise ValueError("a gradient with holes has no values yet")
        position = min(max(depth, 0.0), 1.0) * (len(values) - 1)
        lower = min(int(position), len(values) - 1)
        upper = min(lower + 1, len(values) - 1)
        return values[lower] + (values[upper] - values[lower]) * (position - lower)


@dataclass(frozen=True, slots=True)
class ByGroup:
    """One value for each group of tensors (see `Merge.per`)."""

    values: Mapping[str, "Scalar | Gradient | Hole"]


Value = Scalar | Gradient | ByGroup | Hole
Params = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint or adapter as it stands on a disk or hub.

    `fingerprint` is a hash of its contents, empty until it was read; two sources with one fingerprint are the same.
    """

    model: str
    revision: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model that only answers, under the name that the job's `endpoints:` has for it.

    `fingerprint` is a hash of the address and the model's name there, empty until somebody who knows them put it in.
    """

    name: str
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Per:
    """How a merge's tensors are grouped: by names, by depth in `layers` parts, by both, or each tensor alone."""

    groups: tuple[str, ...] = ()
    layers: int | None = None
    tensor: bool = False

    @property
    def trivial(self) -> bool:
        """True when all tensors are one group."""
        return not (self.groups or self.layers or self.tensor)


@dataclass(frozen=True, slots=True)
class Input:
    """One model that goes into a merge, with the parameters that are its own (weight, density, ...)."""

    recipe: "WeightRecipe"
    params: Params = field(default_factory=dict[str, Value])


@dataclass(frozen=True, slots=True)
class Merge:
    """Combine `inputs` (and `base`, where the method has one) with a method, tensor by tensor.

    `groups` are named sets of tensor name patterns besides the known ones; `seed` decides random masks; `refactor` asks
    for the result as an adapter of that rank.
    """

    method: "str | Hole"
    inputs: tuple[Input, ...]
    base: "WeightRecipe | None" = None
    params: Params = field(default_factory=dict[str, Value])
    per: Per = Per()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    seed: int = 0
    refactor: int | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """One model whose answers go into an ensemble, with the parameters that are its own (weight, ...)."""

    recipe: Endpoint
    params: Params = field(default_factory=dict[str, Value])


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Ask every member and combine their answers with a combiner."""

    combiner: "str | Hole"
    members: tuple[Member, ...]
    params: Params = field(default_factory=dict[str, Value])


WeightRecipe = Source | Merge
"""Recipes that become weights: what a merge can take in, and what a backend for weights can hold."""

Recipe = WeightRecipe | Endpoint | Ensemble


def as_weights(recipe: Recipe) -> WeightRecipe:
    """Return the recipe, which must be one that becomes weights. Raises ConfigError for one that only answers."""
    match recipe:
        case Source() | Merge():
            return recipe
        case Endpoint() | Ensemble():
            raise ConfigError("this recipe asks models for answers, and has no weights; use `evomerge run` or `eval`")


def sources(recipe: Recipe) -> Iterator[Source]:
    """Yield every source of the tree, base first, each as often as it stands there."""
    match recipe:
        case Source():
            yield recipe
        case Merge():
            if recipe.base is not None:
                yield from sources(recipe.base)
            for item in recipe.inputs:
                yield from sources(item.recipe)
        case Endpoint() | Ensemble():
            return


def with_sources(recipe: WeightRecipe, known: Mapping[Source, Source]) -> WeightRecipe:
    """Return the recipe with every source replaced by what `known` has for it."""
    match recipe:
        case Source():
            return known.get(recipe, recipe)
        case Merge():
            return replace(
                recipe,
                base=None if recipe.base is None else with_sources(recipe.base, known),
                inputs=tuple(replace(item, recipe=with_sources(item.recipe, known)) for item in recipe.inputs),
            )


def with_endpoints(recipe: Ensemble, fingerprints: Mapping[str, str]) -> Ensemble:
    """Return the ensemble with the fingerprint of every endpoint put in, by its name."""
    known = (
        replace(item, recipe=Endpoint(item.recipe.name, fingerprints[item.recipe.name])) for item in recipe.members
    )
    return replace(recipe, members=tuple(known))


def recipe_id(recipe: Recipe) -> str:
    """Return the recipe's id: 16 hexadecimal digits of the SHA-256 of its canonical JSON.

    A source counts by its fingerprint (by its path only while it has none), numbers by their value: 1 and 1.0 agree.
    """
    text = json.dumps(_canonical(recipe), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def to_plain(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as the maps, lists and scalars that `recipe:` takes in a job, ready to be written as YAML."""
    match recipe:
        case Source():
            plain: dict[str, Any] = {"model": recipe.model}
            if recipe.revision is not None:
                plain["revision"] = recipe.revision
            return plain
        case Merge():
            return _merge_to_plain(recipe)
        case Endpoint():
            return {"endpoint": recipe.name}
        case Ensemble():
            members = [to_plain(item.recipe) | _params(item.params) for item in recipe.members]
            return {"combine": _value_to_plain(recipe.combiner), "members": members} | _params(recipe.params)


def _merge_to_plain(merge: Merge) -> dict[str, Any]:
    plain: dict[str, Any] = {"method": _value_to_plain(merge.method)}
    if merge.base is not None:
        plain["base"] = _model_to_plain(merge.base)
    plain["models"] = [
        {"model": _model_to_plain(item.recipe)} | {key: _value_to_plain(value) for key, value in item.params.items()}
        for item in merge.inputs
    ]
    plain |= {key: _value_to_plain(value) for key, value in merge.params.items()}
    if not merge.per.trivial:
        plain["per"] = _per_to_plain(merge.per)
    if merge.groups:
        plain["groups"] = {name: list(patterns) for name, patterns in merge.groups.items()}
    if merge.seed:
        plain["seed"] = merge.seed
    if merge.refactor is not None:
        plain["refactor"] = {"rank": merge.refactor}
    return plain


def _model_to_plain(recipe: Recipe) -> str | dict[str, Any]:
    if isinstance(recipe, Source) and recipe.revision is None:
        return recipe.model
    return to_plain(recipe)


def _per_to_plain(per: Per) -> Any:
    if per.tensor:
        return "tensor"
    if per.layers is None:
        return list(per.groups)
    return {"layers": per.layers} | ({"groups": list(per.groups)} if per.groups else {})


def _value_to_plain(value: Value) -> Any:
    match value:
        case Hole():
            return value.to_plain()
        case Gradient():
            return [_value_to_plain(point) for point in value.points]
        case ByGroup():
            return {name: _value_to_plain(item) for name, item in value.values.items()}
        case _:
            return value


def _canonical(node: Recipe) -> Any:
    """Return the tree for hashing: no paths, no defaults that may be written or left out, numbers by value.

    A recipe's own groups keep their order, as the first that matches takes a tensor.
    """
    match node:
        case Source():
            return (
                {"source": node.fingerprint} if node.fingerprint else {"model": node.model, "revision": node.revision}
            )
        case Merge():
            plain = {
                "method": _value_to_plain(node.method),
                "base": None if node.base is None else _canonical(node.base),
                "inputs": [[_canonical(item.recipe), _numbers(_params(item.params))] for item in node.inputs],
                "params": _numbers(_params(node.params)),
                "seed": node.seed,
                "refactor": node.refactor,
            }
            if _uses_groups(node):
                plain["per"] = _per_to_plain(node.per)
                plain["groups"] = [[name, list(patterns)] for name, patterns in node.groups.items()]
            return plain
        case Endpoint():
            return {"endpoint": node.fingerprint or node.name}
        case Ensemble():
            return {
                "combiner": _value_to_plain(node.combiner),
                "members": [[_canonical(item.recipe), _numbers(_params(item.params))] for item in node.members],
                "params": _numbers(_params(node.params)),
            }


def _params(params: Params) -> dict[str, Any]:
    return {key: _value_to_plain(value) for key, value in params.items()}


def _uses_groups(merge: Merge) -> bool:
    """Return whether groups decide anything: a value by group, or a hole that becomes one gene a group."""
    values = [*merge.params.values(), *(value for item in merge.inputs for value in item.params.values())]
    return any(
        isinstance(value, ByGroup | Hole)
        or (isinstance(value, Gradient) and any(isinstance(point, Hole) for point in value.points))
        for value in values
    )


def _numbers(node: Any) -> Any:
    """Write every number in one way, so that 1, 1.0 and -0.0 hash as their values do."""
    if isinstance(node, dict):
        return {key: _numbers(value) for key, value in node.items()}  # pyright: ignore[reportUnknownVariableType]  # JSON-like
    if isinstance(node, list):
        return [_numbers(value) for value in node]  # pyright: ignore[reportUnknownVariableType]  # JSON-like
    if isinstance(node, float):
        if not math.isfinite(node):
            raise ValueError(f"{node} is not a number that a recipe can hold")
        return int(node) if node.is_integer() else node
    return node
