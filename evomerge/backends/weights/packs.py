"""The packs of EMR-Merging: a mask and a factor for each model, which turn the merge of all into nearly that model.

With u the change that the unified model makes to the base, and tau_i that of model i: a pack has m_i = [tau_i u > 0], a
bit an element, and lambda_i = sum |tau_i| / sum |m_i u|, summed over the whole model (0 where nothing is left); the
model is then nearly base + lambda_i m_i u (Huang et al. 2024, arXiv:2405.17461). As u is read from the unified model
that was written, rounding it loses nothing more; weights and scale of the merge cancel. Nothing here decides what the
unified model is.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.backends.weights.checkpoint import Checkpoint
from evomerge.backends.weights.headers import Stored
from evomerge.backends.weights.models import merges
from evomerge.backends.weights.raw import Raw
from evomerge.backends.weights.writing import write_tensors
from evomerge.errors import ConfigError
from evomerge.recipe.tree import Input, Merge, Result, Source, WeightRecipe, recipe_id, result_of

if TYPE_CHECKING:
    from torch import Tensor

    from evomerge.backends.weights.store import WeightStore

METHOD, PARAMETER = "emr", "packs"
FOLDER, INDEX, FACTOR = "packs", "packs.json", "factor"
_FLOAT32 = Result("float32")


def check_packs(recipe: WeightRecipe) -> None:
    """Raise ConfigError where packs are asked for that cannot be made."""
    for merge in merges(recipe):
        wanted = merge.params.get(PARAMETER, False) if merge.method == METHOD else False
        if wanted is False:
            continue
        if wanted is not True:
            raise ConfigError("packs: must be true or false, the same for all tensors")
        if merge is not recipe:
            raise ConfigError(
                "packs: it is written within a recipe, where nothing is stored; write it at the outermost"
            )
        if merge.refactor is not None or result_of(recipe).tokenizer is not None:
            raise ConfigError(
                "packs: they belong to a whole model with the base's tokens; remove refactor or tokenizer"
            )


def pack_names(recipe: WeightRecipe) -> tuple[str, ...]:
    """Return the names of the packs that a recipe asks for: those of its models' folders, told apart by numbers."""
    if not isinstance(recipe, Merge) or recipe.method != METHOD or recipe.params.get(PARAMETER) is not True:
        return ()
    names: list[str] = []
    for number, item in enumerate(recipe.inputs, 1):
        plain = (Path(item.recipe.model).name if isinstance(item.recipe, Source) else "") or f"model-{number}"
        names.append(plain if plain not in names else f"{plain}-{number}")
    return tuple(names)


def pack_outline(stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """Return dtype and shape of what a pack of a model with these tensors holds."""
    masks = {name: replace(at, dtype="U8", shape=(-(-at.elements // 8),)) for name, at in stored.items() if at.is_float}
    return masks | {FACTOR: Stored(Path(), "F32", (1,))}


def write_packs(folder: Path, store: "WeightStore", recipe: Merge, names: tuple[str, ...], *, durable: bool) -> None:
    """Write packs/NAME.safetensors for each model of a resolved recipe whose unified model stands in `folder`.

    A mask is stored as uint8, bits of the elements in row-major order, the lowest first; `factor` is float32. Beside
    them packs.json tells which base they stand on.
    """
    if recipe.base is None:
        raise ConfigError("packs: they stand on a base, and the recipe has none")
    packs = folder / FOLDER
    packs.mkdir()
    unified = Checkpoint(folder)
    outline = pack_outline(unified.stored)
    for name, item in zip(names, recipe.inputs, strict=True):
        tensors = _packed(store, unified, recipe.base, item.recipe)
        write_tensors(packs, {f"{name}.safetensors": outline}, tensors, durable=durable)
    said = {"base": recipe_id(recipe.base), "packs": list(names)}
    (packs / INDEX).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def in_float32(store: "WeightStore", recipe: WeightRecipe, base: WeightRecipe | None = None) -> WeightRecipe:
    """Return a recipe whose tensors are those of `recipe` in float32; an adapter stands on `base`."""
    if not isinstance(recipe, Source):
        return replace(recipe, result=_FLOAT32)
    if store.is_adapter(recipe):
        return Merge("task_arithmetic", (Input(recipe),), base, result=_FLOAT32)
    return Merge("linear", (Input(recipe),), result=_FLOAT32)


def _packed(
    store: "WeightStore", unified: Checkpoint, base: WeightRecipe, model: WeightRecipe
) -> Iterator[tuple[str, Raw]]:
    """Yield the masks of a model, and its factor."""
    import numpy as np

    changed = kept = 0.0
    pairs = zip(store.tensors(in_float32(store, base)), store.tensors(in_float32(store, model, base)), strict=True)
    for (name, origin), (_, tensor) in pairs:
        if not unified.stored[name].is_float:
            continue
        mask, of_model, of_unified = masked(tensor.sub_(origin), unified.float32(name).sub_(origin))
        changed, kept = changed + of_model, kept + of_unified
        bits = np.packbits(mask.numpy().reshape(-1), bitorder="little")
        yield name, Raw(bits, "U8", bits.shape)
    yield FACTOR, Raw(np.array([changed / kept if kept else 0.0], dtype=np.float32), "F32", (1,))


def masked(change: "Tensor", unified: "Tensor") -> "tuple[Tensor, float, float]":
    """Return where two changes to the base have one sign, and the sums of magnitudes of the first, and there of both.

    Sums are added up in float64.
    """
    import torch

    mask = change.sign() * unified.sign() > 0
    of_model = float(change.abs().sum(dtype=torch.float64))
    return mask, of_model, float(unified.abs().mul_(mask).sum(dtype=torch.float64))
