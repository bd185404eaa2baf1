"""A recipe as it is written: the maps, lists and scalars that `recipe:` takes in a job, ready for YAML."""

from typing import Any

from evomerge.recipe.served import ServedMerge
from evomerge.recipe.tree import Endpoint, Ensemble, Input, Merge, Recipe, Result, Slice, Source, Stack, is_part
from evomerge.recipe.values import params_to_plain, value_to_plain


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
        case Stack():
            return _stack_to_plain(recipe)
        case Endpoint():
            return {"endpoint": recipe.name}
        case Ensemble():
            members = [to_plain(item.recipe) | params_to_plain(item.params) for item in recipe.members]
            return {"combine": value_to_plain(recipe.combiner), "members": members} | params_to_plain(recipe.params)
        case ServedMerge():
            models = [{"adapter": item.adapter.id} | params_to_plain(item.params) for item in recipe.inputs]
            return {"method": recipe.method, "models": models} | params_to_plain(recipe.params)


def _merge_to_plain(merge: Merge) -> dict[str, Any]:
    plain: dict[str, Any] = {"method": value_to_plain(merge.method)}
    if merge.base is not None:
        plain["base"] = _model_to_plain(merge.base)
    plain["models"] = [_input_to_plain(item) for item in merge.inputs]
    plain |= params_to_plain(merge.params)
    if not merge.per.trivial:
        plain["per"] = merge.per.to_plain()
    if merge.groups:
        plain["groups"] = {name: list(patterns) for name, patterns in merge.groups.items()}
    if merge.seed:
        plain["seed"] = merge.seed
    if merge.refactor is not None:
        plain["refactor"] = {"rank": merge.refactor}
    return plain | _result_to_plain(merge.result)


def _input_to_plain(item: Input) -> dict[str, Any]:
    written = _model_to_plain(item.recipe)
    part = {"model": written} if not is_part(item.recipe) or isinstance(written, str) else written
    return part | params_to_plain(item.params)


def _stack_to_plain(stack: Stack) -> dict[str, Any]:
    """Return a stack as written; layers of one model, and nothing else, are that model with its layers."""
    if is_part(stack):
        return _slice_to_plain(stack.slices[0])
    plain: dict[str, Any] = {"stack": [_slice_to_plain(item) for item in stack.slices]}
    if stack.base is not None:
        plain["base"] = _model_to_plain(stack.base)
    if stack.head != "base":
        plain["head"] = stack.head
    return plain | _result_to_plain(stack.result)


def _slice_to_plain(item: Slice) -> dict[str, Any]:
    plain: dict[str, Any] = {"model": _model_to_plain(item.recipe)}
    if item.layers is not None:
        plain["layers"] = list(item.layers)
    if item.scale != 1:
        plain["scale"] = value_to_plain(item.scale)
    return plain


def _result_to_plain(result: Result) -> dict[str, Any]:
    plain: dict[str, Any] = {} if result.dtype is None else {"dtype": result.dtype}
    match result.tokenizer:
        case None:
            return plain
        case Source(model=model, revision=revision):
            return plain | {"tokenizer": {"source": model} | ({} if revision is None else {"revision": revision})}
        case word:
            return plain | {"tokenizer": {"source": word}}


def _model_to_plain(recipe: Recipe) -> str | dict[str, Any]:
    if isinstance(recipe, Source) and recipe.revision is None:
        return recipe.model
    return to_plain(recipe)
