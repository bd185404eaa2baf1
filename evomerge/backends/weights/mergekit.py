"""A recipe as the YAML of mergekit, where both mean the same; a sentence why not where they do not.

Formulas, gradients over depth and first-match filters agree with mergekit's; groups become filters, which are tried on
every tensor's name before they are believed. Random masks are drawn differently: that is said in a comment.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from evomerge.backends.weights.result import NAMES as DTYPES
from evomerge.backends.weights.stacking import is_output
from evomerge.recipe.groups import KNOWN_GROUPS, Grouping, Layout, layer_of
from evomerge.recipe.holes import Hole
from evomerge.recipe.tree import Merge, Source, Stack, WeightRecipe, result_of
from evomerge.recipe.values import ByGroup, ByPattern, Gradient, Scalar, Value, scalars
from evomerge.strategies.merge.registry import get

_ANY = "*"
_NAMES: Mapping[str, str] = {"scale": "lambda"}
_MASKS = (
    "# mergekit draws other random masks, and keeps each tensor's sum of magnitudes: its result is another sample.\n"
)


class NotExpressible(Exception):
    """Why a recipe cannot be said to mergekit, as the end of a sentence."""


def to_mergekit(recipe: WeightRecipe, layout: Layout, dtype: str) -> str:
    """Return the YAML of a merge or stack of whole models; `dtype` is that of the result (BF16, F16, F32).

    Raises NotExpressible.
    """
    if result_of(recipe).tokenizer is not None:
        raise NotExpressible("it fits vocabularies to each other in a way of its own")
    config, comment = _stack(recipe, layout) if isinstance(recipe, Stack) else _merge(recipe, layout)
    config |= {"dtype": "float32", "out_dtype": DTYPES[dtype]}
    return comment + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def _stack(stack: Stack, layout: Layout) -> tuple[dict[str, Any], str]:
    first, last = stack.slices[0].recipe, stack.slices[-1].recipe
    if (stack.base or first) != first or (stack.head == "base" and last != first):
        raise NotExpressible("it takes what stands before the layers from the first slice, what follows from the last")
    slices: list[dict[str, Any]] = []
    for item in stack.slices:
        if item.layers is None:
            raise NotExpressible("it wants the numbers of every slice's layers")
        source: dict[str, Any] = {"model": _name(item.recipe), "layer_range": list(item.layers)}
        if item.scale != 1:
            source["parameters"] = {"scale": _output_scale(item.scale, layout)}
        slices.append({"sources": [source]})
    return {"merge_method": "passthrough", "slices": slices}, ""


def _output_scale(scale: Value, layout: Layout) -> list[dict[str, Any]]:
    entries = [{"filter": part, "value": scale} for part in ("o_proj", "down_proj")] + [{"value": 1.0}]
    if any(is_output(tensor) != (_first(entries, tensor) == scale) for tensor in layout.tensors):
        raise NotExpressible("its filters do not fit what the layers of these models end with")
    return entries


def _merge(recipe: WeightRecipe, layout: Layout) -> tuple[dict[str, Any], str]:
    if not isinstance(recipe, Merge):
        raise NotExpressible("it is a single model")
    if recipe.refactor is not None:
        raise NotExpressible("it is refactored to a low rank")
    models = [_name(item.recipe) for item in recipe.inputs]
    base = None if recipe.base is None else _name(recipe.base)
    writer = _Writer(recipe, layout)
    config: dict[str, Any] = {"merge_method": str(recipe.method)}
    match recipe.method:
        case "slerp":
            models = models if base is None else [base, *models]
            config |= {"base_model": models[0], "models": [{"model": model} for model in models]}
            config["parameters"] = writer.merge("t")
        case "linear":
            config |= {"models": writer.models(models, "weight"), "parameters": writer.merge("normalize")}
        case "task_arithmetic":
            config |= {"base_model": base, "models": writer.models(models, "weight")}
            config["parameters"] = writer.merge("scale", "normalize")
        case "dare_linear":
            config |= {"base_model": base, "models": writer.models(models, "weight", "density")}
            config["parameters"] = writer.merge("scale", "normalize") | {"rescale": True}
        case "ties" | "dare_ties":
            config |= {"base_model": base, "models": writer.models(models, "weight", "density")}
            config["parameters"] = writer.merge("scale") | {"normalize": writer.mean()}
            if recipe.method == "dare_ties":
                config["parameters"] |= {"rescale": True}
        case _:
            raise NotExpressible(f"it has no method that means what {recipe.method} means here")
    return config, _MASKS if str(recipe.method).startswith("dare") else ""


def _name(recipe: WeightRecipe) -> str:
    if not isinstance(recipe, Source):
        raise NotExpressible("it merges merges or slices, and one file of mergekit describes one merge")
    return recipe.model if recipe.revision is None else f"{recipe.model}@{recipe.revision}"


class _Writer:
    """Writes the parameters of one merge."""

    def __init__(self, merge: Merge, layout: Layout) -> None:
        self._merge = merge
        self._grouping = Grouping.of(merge, layout)
        self._declared = {parameter.name: parameter for parameter in get(str(merge.method)).parameters}

    def merge(self, *names: str) -> dict[str, Any]:
        """Return parameters of the merge itself."""
        return {_NAMES.get(name, name): self._written(self._merge.params.get(name), name) for name in names}

    def models(self, models: list[str], *names: str) -> list[dict[str, Any]]:
        """Return the models with parameters of their own."""
        return [
            {"model": model, "parameters": {name: self._written(item.params.get(name), name) for name in names}}
            for model, item in zip(models, self._merge.inputs, strict=True)
        ]

    def mean(self) -> bool:
        """Return whether what agrees is averaged rather than summed, where that means the same for every weight."""
        chosen = self._merge.params.get("merge_func", self._declared["merge_func"].default)
        if chosen not in ("mean", "sum"):
            raise NotExpressible("it has no merge_func but the mean and the sum, the same for all tensors")
        weights = [number for item in self._merge.inputs for number in _numbers(item.params.get("weight", 1.0))]
        if chosen == "mean" and min(weights) < 0:
            raise NotExpressible("it divides by weights rather than by their magnitudes, and some are negative")
        return chosen == "mean"

    def _written(self, value: Value | None, name: str) -> Any:
        default = self._declared[name].default
        if value is None:
            return default
        if isinstance(value, Gradient):
            value = ByPattern(((_ANY, value),))
        if not isinstance(value, ByGroup | ByPattern):
            return value
        entries = self._filtered(value, default)
        return entries[0]["value"] if len(entries) == 1 else entries

    def _filtered(self, value: ByGroup | ByPattern, default: Scalar) -> list[dict[str, Any]]:
        """Return values by filter: mergekit takes the first whose filter is a part of the tensor's name."""
        wanted: dict[str, Any] = {}
        layout = self._grouping.layout
        for tensor in layout.tensors:
            known = (
                value.values.get(self._grouping.group(tensor) or "") if isinstance(value, ByGroup) else value.of(tensor)
            )
            if isinstance(known, Gradient) and layer_of(tensor) is None:
                known = known.at(layout.depth(tensor))
            wanted[tensor] = default if known is None else _plain(known)
        by_pattern = _by_pattern(value, default) if isinstance(value, ByPattern) else []
        inside = {tensor: found for tensor, found in wanted.items() if layer_of(tensor) is not None}
        outside = _by_name({tensor: found for tensor, found in wanted.items() if tensor not in inside})
        short = (by_pattern, self._by_role(wanted), [*outside, *by_pattern], [*outside, *self._by_role(inside)])
        for entries in (*short, _by_layer(wanted), _by_name(wanted)):
            if all(_first(entries, tensor) == found for tensor, found in wanted.items()):
                return entries
        raise NotExpressible("its filters cannot tell these groups apart")

    def _by_role(self, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return one filter for each pattern of the groups that some tensor needs, and the value of what is left."""
        entries: list[dict[str, Any]] = []
        left = dict(wanted)
        own, listed = self._merge.groups, self._merge.per.groups
        groups = [own[name] for name in own if name in listed]
        groups += [KNOWN_GROUPS[name] for name in KNOWN_GROUPS if name in listed and name not in own]
        for patterns in groups:
            for pattern in patterns:
                taken = [tensor for tensor in left if pattern.strip("*") in tensor]
                if taken:
                    entries.append({"filter": pattern.strip("*"), "value": left[taken[0]]})
                left = {tensor: found for tensor, found in left.items() if tensor not in taken}
        rest = next(iter(left.values()), None)
        entries = [entry for entry in entries if entry["value"] != rest]
        return entries if rest is None else [*entries, {"value": rest}]


def _by_layer(wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries: dict[str, Any] = {}
    for tensor, found in wanted.items():
        number = layer_of(tensor)
        before, dot, _ = tensor.partition(f".{number}.")
        entries.setdefault(before + dot if number is not None else tensor, found)
    return [{"filter": part, "value": found} for part, found in entries.items()]


def _by_name(wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    longest_first = sorted(wanted, key=lambda tensor: (-len(tensor), tensor))
    return [{"filter": tensor, "value": wanted[tensor]} for tensor in longest_first]


def _first(entries: list[dict[str, Any]], tensor: str) -> Any:
    """Return what mergekit reads: the first filter in the name; outside the layers the first point of a gradient."""
    found = next((entry["value"] for entry in entries if entry.get("filter", "") in tensor), None)
    return found[0] if isinstance(found, list) and layer_of(tensor) is None else found  # pyright: ignore[reportUnknownVariableType]  # YAML


def _by_pattern(value: ByPattern, default: Scalar) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for pattern, item in value.values:
        if pattern == _ANY:
            return [*entries, {"value": _plain(item)}]
        entries.append({"filter": pattern.strip(_ANY), "value": _plain(item)})
    return [*entries, {"value": default}]


def _plain(value: Value) -> Any:
    return list(value.points) if isinstance(value, Gradient) else value


def _numbers(value: Value) -> list[float]:
    parts = list(scalars(value))
    if any(isinstance(part, Hole) for part in parts):
        raise NotExpressible("it still has holes")
    return [float(part) for part in parts if isinstance(part, int | float) and not isinstance(part, bool)]
