"""Values of a recipe as mergekit reads them: numbers, gradients over depth, and filters in place of groups.

mergekit takes the first filter that is a part of a tensor's name. Groups become filters, which are tried on every
tensor's name before they are believed. A value that mergekit does not have is refused by a sentence.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from evomerge.recipe.groups import KNOWN_GROUPS, Grouping, Layout, layer_of
from evomerge.recipe.mergekit.methods import Method, Parameter
from evomerge.recipe.tree import Merge
from evomerge.recipe.values import ByGroup, ByPattern, Gradient, Params, Scalar, Value, is_open, scalars
from evomerge.strategies.merge.registry import get

_ANY = "*"
_NUMBERED = re.compile(r"(?:^|\.)\d+(?:\.|$)")


class NotExpressible(Exception):
    """Why a recipe cannot be said to mergekit, as the end of a sentence."""


class Writer:
    """Writes the parameters of one merge, whose method is called `theirs` there and described by `known`.

    Within slices (`sliced`) layers have other numbers than in the result, so that no filter can name one.
    """

    def __init__(self, merge: Merge, layout: Layout, theirs: str, known: Method, *, sliced: bool) -> None:
        self._merge = merge
        self._grouping = Grouping.of(merge, layout)
        self._declared = {parameter.name: parameter for parameter in get(known.ours).parameters}
        self._theirs = theirs
        self._known = known
        self._sliced = sliced

    def check(self) -> None:
        """Raise NotExpressible for a value that their method cannot have."""
        of_models = [item.params for item in self._merge.inputs]
        if any(is_open(value) for params in (self._merge.params, *of_models) for value in params.values()):
            raise NotExpressible("it still has holes")
        said = {parameter.ours for parameter in (*self._known.merge.values(), *self._known.models.values())}
        for name, declared in self._declared.items():
            if name in said:
                continue
            only = self._known.besides.get(name, declared.default)
            for params in (self._merge.params,) if declared.of == "merge" else of_models:
                for found in scalars(params.get(name, declared.default)):
                    if found != only:
                        raise self._other(name, found, [only])
        self._check_signs()

    def merge(self) -> dict[str, Any]:
        """Return the parameters of the merge itself. Raises NotExpressible."""
        return self._all(self._known.merge, self._merge.params)

    def model(self, params: Params) -> dict[str, Any]:
        """Return the parameters of one of the models. Raises NotExpressible."""
        return self._all(self._known.models, params)

    def _all(self, known: Mapping[str, Parameter], params: Params) -> dict[str, Any]:
        return {name: self._written(params.get(parameter.ours), parameter) for name, parameter in known.items()}

    def _check_signs(self) -> None:
        """Refuse weights below zero where votes are averaged: there a mean is divided by their sum with its signs."""
        if "merge_func" not in self._declared:
            return
        chosen = self._merge.params.get("merge_func", self._declared["merge_func"].default)
        weights = [part for item in self._merge.inputs for part in scalars(item.params.get("weight", 1.0))]
        if "mean" in [*scalars(chosen)] and any(isinstance(part, int | float) and part < 0 for part in weights):
            raise NotExpressible(
                f"{self._theirs} of mergekit divides by weights rather than by their magnitudes, and some are negative"
            )

    def _other(self, name: str, found: object, known: Iterable[Scalar]) -> NotExpressible:
        only = " and ".join(map(_word, known))
        return NotExpressible(f"its {name} is {_word(found)}, and {self._theirs} of mergekit has only {only}")

    def _written(self, value: Value | None, parameter: Parameter) -> Any:
        default = self._declared[parameter.ours].default
        if value is None:
            return self._said(default, parameter)
        if isinstance(value, Gradient):
            value = ByPattern(((_ANY, value),))
        if not isinstance(value, ByGroup | ByPattern):
            return self._said(value, parameter)
        entries = self._filtered(value, default)
        entries = [entry | {"value": self._said(entry["value"], parameter)} for entry in entries]
        return entries[0]["value"] if len(entries) == 1 else entries

    def _said(self, value: Any, parameter: Parameter) -> Any:
        """Return a value in their words."""
        if not parameter.words:
            return value
        for theirs, ours in parameter.words.items():
            if ours == value:
                return theirs
        raise self._other(parameter.ours, value, parameter.words.values())

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
            if self._sliced and any(_NUMBERED.search(entry.get("filter", "")) for entry in entries):
                continue
            if all(first_of(entries, tensor) == found for tensor, found in wanted.items()):
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


def first_of(entries: list[dict[str, Any]], tensor: str) -> Any:
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


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
