"""The models of one study, each opened once and kept open, and what a recipe's structure says about them.

The structure is that of the recipe tree and of the files' headers alone: holes may be open, and no tensor is read.
"""

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeGuard

from evomerge.backends.weights.adapter import Adapter
from evomerge.backends.weights.checkpoint import HEAD, Checkpoint
from evomerge.backends.weights.files import Opened, located, opened
from evomerge.backends.weights.headers import Stored
from evomerge.backends.weights.stacking import Form, Stacked, stacked
from evomerge.backends.weights.statistics import Statistics
from evomerge.errors import SourceError
from evomerge.recipe.groups import KNOWN_GROUPS, Layout, layer_of
from evomerge.recipe.tree import Merge, Source, Stack, WeightRecipe, children, sources

_ROUTERS = ("*.gate.weight", "*.router.weight", "*.shared_expert_gate.weight")


class Models:
    """Opened folders, by source, and what was found out about their tensors."""

    tokenizer: Path | None = None
    """The folder whose tokenizer the recipe's result has, where that is chosen."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str | None], Opened] = {}
        self.statistics = Statistics()

    def located(self, source: Source, root: Path) -> tuple[Source, Opened]:
        """Return a source with its absolute path or hub id, and what it holds. Raises SourceError."""
        found, folder = located(source, root)
        key = (found.model, found.revision)
        if key not in self._open:
            self._open[key] = opened(folder)
        return found, self._open[key]

    def open(self, source: Source) -> Opened:
        """Return what a source holds. Raises SourceError."""
        known = self._open.get((source.model, source.revision))
        return known if known is not None else self.located(source, Path.cwd())[1]

    def checkpoint(self, source: Source) -> Checkpoint:
        """Return a source that must be a full checkpoint. Raises SourceError for an adapter."""
        model = self.open(source)
        if isinstance(model, Adapter):
            raise SourceError(
                f"{model.folder} is an adapter where a full checkpoint is needed; give the model it was made for"
            )
        return model

    def form(self, recipe: WeightRecipe) -> Form:
        """Return what a recipe's checkpoint looks like: as its base or first model does, or as it is stacked.

        Raises SourceError for adapters without a model, and for layers that are not there.
        """
        found = self._form(recipe)
        if found is None:
            first = next(sources(recipe)).model
            raise SourceError(f"{first} is an adapter, and the recipe names no model to put it on; write one as base:")
        return found

    def _form(self, recipe: WeightRecipe) -> Form | None:
        match recipe:
            case Source():
                model = self.open(recipe)
                return model if isinstance(model, Checkpoint) else None
            case Merge():
                forms = (self._form(child) for _, child in children(recipe))
                return next((form for form in forms if form is not None), None)
            case Stack():
                return self.stacked(recipe)

    def stacked(self, stack: Stack) -> Stacked:
        """Return the form of a stack. Raises SourceError."""
        return stacked(stack, *self.forms(stack))

    def forms(self, stack: Stack) -> tuple[Form, list[Form]]:
        """Return the form of a stack's base (or first slice's model), and those of its slices' models."""
        slices = [self.form(item.recipe) for item in stack.slices]
        return (slices[0] if stack.base is None else self.form(stack.base)), slices

    def adapter_base(self, recipe: WeightRecipe) -> Source | None:
        """Return the base of a merge that can be an adapter on it, None for others.

        It can where all is adapters on that base, at every level, and where the recipe asks to factor the change.
        """
        if isinstance(recipe, Merge) and isinstance(recipe.base, Source) and recipe.inputs:
            return recipe.base if recipe.refactor is not None or self.all_adapters(recipe) else None
        return None

    def all_adapters(self, merge: Merge) -> bool:
        """Return whether all inputs of a merge are adapters on its base, or merges that can be."""
        return merge.base is not None and all(
            isinstance(self.open(item.recipe), Adapter)
            if isinstance(item.recipe, Source)
            else self.adapter_base(item.recipe) == merge.base
            for item in merge.inputs
        )

    def changed(self, recipe: WeightRecipe) -> frozenset[str] | None:
        """Return the names of the weights that the adapter of a merge changes; None for a merge that can be none.

        Of whole models whose change is to be factored, these are the weights of linear layers.
        """
        base = self.adapter_base(recipe)
        if base is None or not isinstance(recipe, Merge):
            return None
        found: set[str] = set()
        for item in recipe.inputs:
            model = self.open(item.recipe) if isinstance(item.recipe, Source) else None
            if isinstance(model, Adapter):
                found |= {weight_of(module) for module in model.modules}
            elif self.adapter_base(item.recipe) == base:
                found |= self.changed(item.recipe) or frozenset()
            else:
                found |= {name for name, stored in self.form(base).stored.items() if is_linear(name, stored)}
        return frozenset(found)

    def layout(self, recipe: WeightRecipe) -> Layout:
        """Return the tensors that a recipe touches, in natural order, and those of its parts that touch others.

        A merge of whole models touches all of them, even where only the change of some is kept.
        """
        tensors = self.changed(recipe) if _is_merge(recipe) and self.all_adapters(recipe) else None
        if tensors is None:
            stored = self.form(recipe).stored
            tensors = frozenset(name for name, tensor in stored.items() if tensor.is_float)
        parts = {
            ".".join(map(str, key)): self.layout(child)
            for key, child in children(recipe)
            if has_stack(child) or (_is_merge(child) and (isinstance(recipe, Stack) or child.refactor is not None))
        }
        return Layout(tuple(sorted(tensors, key=natural)), parts)


def _is_merge(recipe: WeightRecipe) -> TypeGuard[Merge]:
    return isinstance(recipe, Merge)


def has_stack(recipe: WeightRecipe) -> bool:
    """Return whether there is a stack in a recipe."""
    return isinstance(recipe, Stack) or any(has_stack(child) for _, child in children(recipe))


def is_linear(name: str, stored: Stored) -> bool:
    """Return whether a tensor is the weight of a linear layer, as far as its name and shape tell.

    Those of the layers and the output head are; embeddings and what routes between experts are not.
    """
    if not stored.is_float or len(stored.shape) != 2 or not name.endswith(".weight"):
        return False
    if any(fnmatchcase(name, known) for known in (*KNOWN_GROUPS["embeddings"], *KNOWN_GROUPS["norms"], *_ROUTERS)):
        return False
    return layer_of(name) is not None or name == HEAD


def weight_of(module: str) -> str:
    """Return the name of the weight of a module."""
    return f"{module}.weight"


def module_of(weight: str) -> str:
    """Return the module that a weight belongs to."""
    return weight.removesuffix(".weight")


def natural(name: str) -> tuple[tuple[bool, int, str], ...]:
    """Return a key that sorts names with their numbers by value: layer 2 before layer 10."""
    parts = re.split(r"(\d+)", name)
    return tuple((part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts)


def merges(recipe: WeightRecipe) -> list[Merge]:
    """Return every merge of a tree, outer ones first."""
    own = [recipe] if isinstance(recipe, Merge) else []
    return [*own, *(merge for _, child in children(recipe) for merge in merges(child))]
