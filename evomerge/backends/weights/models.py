"""The models of one study, each opened once and kept open, and what a recipe's structure says about them.

The structure is that of the recipe tree and of the files' headers alone: holes may be open, and no tensor is read.
"""

import re
from pathlib import Path

from evomerge.backends.weights.adapter import Adapter
from evomerge.backends.weights.checkpoint import Checkpoint
from evomerge.backends.weights.files import Opened, located, opened
from evomerge.backends.weights.stacking import Form, Stacked, stacked
from evomerge.backends.weights.statistics import Statistics
from evomerge.errors import SourceError
from evomerge.recipe.groups import Layout
from evomerge.recipe.tree import Merge, Source, Stack, WeightRecipe, children, sources


class Models:
    """Opened folders, by source, and what was found out about their tensors."""

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
        """Return the one base of a merge in which all is adapters on that base, at every level; None for others."""
        if not isinstance(recipe, Merge) or not isinstance(recipe.base, Source) or not recipe.inputs:
            return None
        for item in recipe.inputs:
            if isinstance(item.recipe, Source):
                if not isinstance(self.open(item.recipe), Adapter):
                    return None
            elif self.adapter_base(item.recipe) != recipe.base:
                return None
        return recipe.base

    def changed(self, recipe: WeightRecipe) -> frozenset[str] | None:
        """Return the names of the weights that a merge of adapters changes; None for a merge of whole models."""
        if self.adapter_base(recipe) is None:
            return None
        adapters = (self.open(source) for source in sources(recipe))
        return frozenset(
            weight_of(module) for model in adapters if isinstance(model, Adapter) for module in model.modules
        )

    def layout(self, recipe: WeightRecipe) -> Layout:
        """Return the tensors that a recipe touches, in natural order, and those that the slices in it do."""
        changed = self.changed(recipe)
        if changed is None:
            stored = self.form(recipe).stored
            changed = frozenset(name for name, tensor in stored.items() if tensor.is_float)
        parts = {
            ".".join(map(str, key)): self.layout(child)
            for key, child in children(recipe)
            if has_stack(child) or (isinstance(recipe, Stack) and isinstance(child, Merge))
        }
        return Layout(tuple(sorted(changed, key=natural)), parts)


def has_stack(recipe: WeightRecipe) -> bool:
    """Return whether there is a stack in a recipe."""
    return isinstance(recipe, Stack) or any(has_stack(child) for _, child in children(recipe))


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
