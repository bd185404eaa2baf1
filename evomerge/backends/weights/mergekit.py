"""A recipe as the YAML of mergekit, where both mean the same; a sentence why not where they do not.

Methods and parameters are those of the table by which files of mergekit are read, so what is written reads back as the
recipe. Where a result may be another all the same (random masks are drawn differently), a comment in the file says so.
"""

from dataclasses import dataclass
from typing import Any

import yaml

from evomerge.backends.weights.mergekit_values import NotExpressible, Writer, first_of
from evomerge.backends.weights.result import NAMES as DTYPES
from evomerge.backends.weights.stacking import is_output
from evomerge.recipe.groups import Layout
from evomerge.recipe.mergekit.methods import METHODS, PASSTHROUGH
from evomerge.recipe.tree import Merge, Source, Stack, WeightRecipe, is_part, result_of
from evomerge.recipe.values import Value

_METHODS = {known.ours: (theirs, known) for theirs, known in METHODS.items()}


@dataclass(frozen=True, slots=True)
class _Said:
    """A merge in their words: method, base, parameters, and the models with theirs, the base first where it is listed.

    `apart` says what may come out otherwise.
    """

    method: str
    base: str | None
    models: list[dict[str, Any]]
    parameters: dict[str, Any]
    apart: str

    @property
    def head(self) -> dict[str, Any]:
        """What comes first in the file."""
        return {"merge_method": self.method} | ({} if self.base is None else {"base_model": self.base})

    @property
    def tail(self) -> dict[str, Any]:
        """What comes last."""
        return {"parameters": self.parameters} if self.parameters else {}


def to_mergekit(recipe: WeightRecipe, layout: Layout, dtype: str) -> str:
    """Return the YAML of a merge or stack of whole models; `dtype` is that of the result (BF16, F16, F32).

    Raises NotExpressible.
    """
    if result_of(recipe).tokenizer is not None:
        raise NotExpressible("it fits vocabularies to each other in a way of its own")
    match recipe:
        case Source():
            raise NotExpressible("it is a single model")
        case Merge():
            config, apart = _merged(recipe, layout)
        case Stack() if any(isinstance(item.recipe, Merge) for item in recipe.slices):
            config, apart = _merged_slices(recipe, layout)
        case Stack():
            config, apart = _passed(recipe, layout), ""
    config |= {"dtype": "float32", "out_dtype": DTYPES[dtype]}
    comment = f"# {apart}\n" if apart else ""
    return comment + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def _passed(stack: Stack, layout: Layout) -> dict[str, Any]:
    """Return a stack of layers as they are."""
    _check_ends(stack)
    slices: list[dict[str, Any]] = []
    for item in stack.slices:
        if item.layers is None:
            raise NotExpressible("it wants the numbers of every slice's layers")
        source: dict[str, Any] = {"model": _name(item.recipe), "layer_range": list(item.layers)}
        if item.scale != 1:
            source["parameters"] = {"scale": _output_scale(item.scale, layout)}
        slices.append({"sources": [source]})
    return {"merge_method": PASSTHROUGH, "slices": slices}


def _check_ends(stack: Stack) -> None:
    first, last = stack.slices[0].recipe, stack.slices[-1].recipe
    if (stack.base or first) != first or (stack.head == "base" and last != first):
        raise NotExpressible("it takes what stands before the layers from the first slice, what follows from the last")


def _output_scale(scale: Value, layout: Layout) -> list[dict[str, Any]]:
    entries = [{"filter": part, "value": scale} for part in ("o_proj", "down_proj")] + [{"value": 1.0}]
    if any(is_output(tensor) != (first_of(entries, tensor) == scale) for tensor in layout.tensors):
        raise NotExpressible("its filters do not fit what the layers of these models end with")
    return entries


def _merged(merge: Merge, layout: Layout) -> tuple[dict[str, Any], str]:
    """Return a merge of whole models, or of the same layers of each, and what may come out otherwise."""
    sliced = any(isinstance(item.recipe, Stack) for item in merge.inputs)
    said = _said(merge, layout, sliced=sliced)
    if sliced:
        return said.head | {"slices": [{"sources": said.models} | said.tail]}, said.apart
    return said.head | {"models": said.models} | said.tail, said.apart


def _merged_slices(stack: Stack, layout: Layout) -> tuple[dict[str, Any], str]:
    """Return a stack of merged layers, and what may come out otherwise."""
    _check_ends(stack)
    slices: list[_Said] = []
    for index, item in enumerate(stack.slices):
        if not isinstance(item.recipe, Merge) or item.layers is not None or item.scale != 1:
            raise NotExpressible("some of its slices are merges, and those of mergekit are all merged of layers alike")
        slices.append(_said(item.recipe, layout.part("stack", index, "model"), sliced=True))
    first = slices[0]
    if any(said.method != first.method or said.base != first.base for said in slices):
        raise NotExpressible("its slices differ in method or base, and those of mergekit have one")
    if len(slices[-1].models) > len(first.models):
        raise NotExpressible("its last slice has more models than its first, and mergekit leaves some out in the head")
    return first.head | {"slices": [{"sources": said.models} | said.tail for said in slices]}, first.apart


def _said(merge: Merge, layout: Layout, *, sliced: bool) -> _Said:
    if merge.refactor is not None:
        raise NotExpressible("it is refactored to a low rank")
    if str(merge.method) not in _METHODS:
        raise NotExpressible(f"it has no method that means what {merge.method} means here")
    theirs, known = _METHODS[str(merge.method)]
    writer = Writer(merge, layout, theirs, known, sliced=sliced)
    writer.check()
    models = [_entry(item.recipe, writer.model(item.params), sliced=sliced) for item in merge.inputs]
    base = None if merge.base is None else _entry(merge.base, {}, sliced=sliced)
    if known.base == "start" and base is None:
        base, *models = models
    names = [model["model"] for model in models]
    if len(set(names)) < len(names):
        raise NotExpressible("a model is there twice, and mergekit takes each once")
    if known.base == "model":
        base = base if base is not None and base["model"] in names else None
    elif base is not None:
        if base["model"] in names:
            raise NotExpressible("its base is one of its models, and mergekit leaves the base out of these")
        models = [base, *models] if sliced or known.base == "start" else models
    return _Said(theirs, None if base is None else base["model"], models, writer.merge(), known.apart)


def _entry(recipe: WeightRecipe, params: dict[str, Any], *, sliced: bool) -> dict[str, Any]:
    """Return a model with its own parameters; of a slice, with the layers that are meant."""
    entry: dict[str, Any] = {}
    if sliced:
        if not (isinstance(recipe, Stack) and is_part(recipe)):
            raise NotExpressible("it merges whole models with parts of others")
        part = recipe.slices[0]
        recipe, entry = part.recipe, {"layer_range": list(part.layers or ())}
    return {"model": _name(recipe)} | entry | ({"parameters": params} if params else {})


def _name(recipe: WeightRecipe) -> str:
    if not isinstance(recipe, Source):
        raise NotExpressible("it merges merges or slices, and one file of mergekit describes one merge")
    if any(sign in recipe.model for sign in "+@"):
        raise NotExpressible(f"mergekit takes a + or @ in a model's name ({recipe.model}) for more than a letter")
    return recipe.model if recipe.revision is None else f"{recipe.model}@{recipe.revision}"
