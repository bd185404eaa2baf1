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
from typing import Any, Literal

from evomerge.errors import ConfigError
from evomerge.recipe.holes import Hole
from evomerge.recipe.served import ServedMerge
from evomerge.recipe.values import (
    ByGroup,
    Params,
    Value,
    is_open,
    params_to_canonical,
    value_to_plain,
)

Dtype = Literal["base", "float32", "float16", "bfloat16"]


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

    `fingerprint` is a hash of the address, the model's name there and what else decides its answers, empty until
    somebody who knows them put it in.
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

    def to_plain(self) -> Any:
        """Return the groups as they are written in a job."""
        if self.tensor:
            return "tensor"
        if self.layers is None:
            return list(self.groups)
        return {"layers": self.layers} | ({"groups": list(self.groups)} if self.groups else {})


@dataclass(frozen=True, slots=True)
class Input:
    """One model that goes into a merge, with the parameters that are its own (weight, density, ...)."""

    recipe: "WeightRecipe"
    params: Params = field(default_factory=dict[str, Value])


@dataclass(frozen=True, slots=True)
class Result:
    """How the outermost merge or stack is written.

    `dtype` is the float type of its tensors: that of the base where left out, or `base`; naming one asks for a whole
    checkpoint where the merge could stay an adapter. `tokenizer` is there for models whose vocabularies differ: that
    of the base, of one of the models, or the union of all.
    """

    dtype: Dtype | None = None
    tokenizer: "Source | Literal['base', 'union'] | None" = None


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
    result: Result = Result()


@dataclass(frozen=True, slots=True)
class Slice:
    """Consecutive layers of a model, with everything in them.

    `layers` counts from 0 and ends before its second number; None takes all. `scale` multiplies what each of these
    layers adds to the stream between layers: at 0 they change nothing.
    """

    recipe: "WeightRecipe"
    layers: tuple[int, int] | None = None
    scale: "float | int | Hole" = 1.0


@dataclass(frozen=True, slots=True)
class Stack:
    """Put the layers of slices one upon the other.

    What stands outside the layers is that of `base`, or of the first slice's model; with `head: last`, what comes after
    the layers (the final norm, the output head) is that of the last slice's model.
    """

    slices: tuple[Slice, ...]
    base: "WeightRecipe | None" = None
    head: Literal["base", "last"] = "base"
    result: Result = Result()


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


WeightRecipe = Source | Merge | Stack
"""Recipes that become weights: what a merge can take in, and what a backend for weights can hold."""

Recipe = WeightRecipe | Endpoint | Ensemble | ServedMerge


def as_weights(recipe: Recipe) -> WeightRecipe:
    """Return the recipe, which must be one that becomes weights. Raises ConfigError for one that only answers."""
    match recipe:
        case Source() | Merge() | Stack():
            return recipe
        case Endpoint() | Ensemble() | ServedMerge():
            raise ConfigError("this recipe asks models for answers, and has no weights; use `evomerge run` or `eval`")


def children(recipe: WeightRecipe) -> "Iterator[tuple[tuple[str | int, ...], WeightRecipe]]":
    """Yield the recipes that a recipe is made of, base first, each with its keys in what `to_plain` writes."""
    if isinstance(recipe, Source):
        return
    if recipe.base is not None:
        yield ("base",), recipe.base
    if isinstance(recipe, Merge):
        for index, item in enumerate(recipe.inputs):
            yield ("models", index, "model"), item.recipe
    else:
        for index, item in enumerate(recipe.slices):
            yield ("stack", index, "model"), item.recipe


def result_of(recipe: WeightRecipe) -> Result:
    """Return how a recipe is written where it is the outermost."""
    return Result() if isinstance(recipe, Source) else recipe.result


def sources(recipe: Recipe) -> Iterator[Source]:
    """Yield every source of the tree, base first, each as often as it stands there."""
    match recipe:
        case Source():
            yield recipe
        case Merge() | Stack():
            for _, child in children(recipe):
                yield from sources(child)
        case Endpoint() | Ensemble() | ServedMerge():
            return


def with_sources(recipe: WeightRecipe, known: Mapping[Source, Source]) -> WeightRecipe:
    """Return the recipe with every source replaced by what `known` has for it."""
    if isinstance(recipe, Source):
        return known.get(recipe, recipe)
    base = None if recipe.base is None else with_sources(recipe.base, known)
    tokenizer = recipe.result.tokenizer
    if isinstance(tokenizer, Source):
        tokenizer = known.get(tokenizer, tokenizer)
    result = replace(recipe.result, tokenizer=tokenizer)
    if isinstance(recipe, Merge):
        inputs = tuple(replace(item, recipe=with_sources(item.recipe, known)) for item in recipe.inputs)
        return replace(recipe, base=base, inputs=inputs, result=result)
    slices = tuple(replace(item, recipe=with_sources(item.recipe, known)) for item in recipe.slices)
    return replace(recipe, base=base, slices=slices, result=result)


def recipe_id(recipe: Recipe) -> str:
    """Return the recipe's id: 16 hexadecimal digits of the SHA-256 of its canonical JSON.

    A source counts by its fingerprint (by its path only while it has none), numbers by their value: 1 and 1.0 agree.
    """
    text = json.dumps(_canonical(recipe), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_part(recipe: "WeightRecipe") -> bool:
    """Return whether a recipe is layers of a model and nothing else."""
    if not isinstance(recipe, Stack) or len(recipe.slices) != 1:
        return False
    only = recipe.slices[0]
    plain = Stack((Slice(only.recipe, only.layers),))
    return only.layers is not None and recipe == plain


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
                "method": value_to_plain(node.method),
                "base": None if node.base is None else _canonical(node.base),
                "inputs": [
                    [_canonical(item.recipe), _numbers(params_to_canonical(item.params))] for item in node.inputs
                ],
                "params": _numbers(params_to_canonical(node.params)),
                "seed": node.seed,
                "refactor": node.refactor,
            }
            if _uses_groups(node):
                plain["per"] = node.per.to_plain()
                plain["groups"] = [[name, list(patterns)] for name, patterns in node.groups.items()]
            return plain | _canonical_result(node.result)
        case Stack():
            slices = [
                [_canonical(item.recipe), item.layers, _numbers(value_to_plain(item.scale))] for item in node.slices
            ]
            plain = {"stack": slices, "base": None if node.base is None else _canonical(node.base), "head": node.head}
            return plain | _canonical_result(node.result)
        case Endpoint():
            return {"endpoint": node.fingerprint or node.name}
        case Ensemble():
            return {
                "combiner": value_to_plain(node.combiner),
                "members": [
                    [_canonical(item.recipe), _numbers(params_to_canonical(item.params))] for item in node.members
                ],
                "params": _numbers(params_to_canonical(node.params)),
            }
        case ServedMerge():
            inputs = [
                [item.adapter.fingerprint or item.adapter.id, _numbers(params_to_canonical(item.params))]
                for item in node.inputs
            ]
            params = _numbers(params_to_canonical(node.params))
            return {"service": node.service, "method": node.method, "adapters": inputs, "params": params}


def _canonical_result(result: Result) -> dict[str, Any]:
    tokenizer = _canonical(result.tokenizer) if isinstance(result.tokenizer, Source) else result.tokenizer
    known = {"dtype": result.dtype, "tokenizer": tokenizer}
    return {key: value for key, value in known.items() if value is not None}


def _uses_groups(merge: Merge) -> bool:
    """Return whether groups decide anything: a value by group, or a hole that becomes one gene a group."""
    values = [*merge.params.values(), *(value for item in merge.inputs for value in item.params.values())]
    return any(isinstance(value, ByGroup) or is_open(value) for value in values)


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
