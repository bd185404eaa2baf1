"""How the outermost merge or stack is written: the float type of its tensors, and the configuration that says so."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evomerge.backends.weights.headers import Stored
from evomerge.backends.weights.stacking import Form, Stacked
from evomerge.backends.weights.token_map import Remapped
from evomerge.recipe.tree import WeightRecipe, result_of

if TYPE_CHECKING:
    from torch import dtype

NAMES: Mapping[str, str] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""What torch and configurations call the float types of safetensors."""

_STORED = {name: stored for stored, name in NAMES.items()}


def float_type(stored: str) -> "dtype":
    """Return torch's type for a float type of safetensors."""
    import torch

    return getattr(torch, NAMES[stored])


def written(tensor: Stored, recipe: WeightRecipe) -> Stored:
    """Return a tensor's dtype and shape as the recipe's result has it."""
    chosen = _STORED.get(result_of(recipe).dtype or "")
    return replace(tensor, dtype=chosen) if chosen is not None and tensor.is_float else tensor


def changed_config(form: Form, recipe: WeightRecipe) -> Mapping[str, Any] | None:
    """Return the configuration of a recipe's checkpoint, None where it is the one of the form's folder as it stands."""
    chosen = result_of(recipe).dtype
    if chosen not in _STORED:
        return form.config if isinstance(form, Stacked | Remapped) else None
    key = "torch_dtype" if "torch_dtype" in form.config and "dtype" not in form.config else "dtype"
    return {**form.config, key: chosen}
