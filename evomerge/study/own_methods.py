"""Merge methods of a person's own, which a recipe names as `my.module:method` beside its file.

They are imported before the recipe is checked. Their code is a part of what makes a study this study.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from evomerge.errors import ConfigError
from evomerge.recipe.code import code_hash, is_code_name, load
from evomerge.recipe.holes import Hole
from evomerge.recipe.tree import Merge, Recipe, WeightRecipe, as_weights, children
from evomerge.strategies.merge.protocol import Method
from evomerge.strategies.merge.registry import add, get
from evomerge.strategies.merge.resolve import RecipeProblem


def import_methods(recipe: WeightRecipe, root: Path) -> None:
    """Import the methods that a recipe names as `my.module:method`, with `root` on the path.

    Raises RecipeProblem, saying where in the recipe, for one that cannot be imported or is no method.
    """
    for path, name in _named(recipe, ()):
        try:
            found = load(name, root)
        except ConfigError as error:
            raise RecipeProblem((*path, "method"), str(error)) from None
        if not isinstance(found, Method):
            raise RecipeProblem(
                (*path, "method"), f"{name} is no merge method; put the decorator evomerge.method(...) on its formula"
            )
        add(name, found)


def method_hashes(recipe: Recipe) -> Mapping[str, str]:
    """Return a hash of the code of every imported method of a recipe, by its name."""
    if not isinstance(recipe, WeightRecipe):
        return {}
    return {name: code_hash(get(name).apply) for _, name in _named(as_weights(recipe), ())}


def _named(recipe: WeightRecipe, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(recipe, Merge):
        names = recipe.method.choices if isinstance(recipe.method, Hole) else (recipe.method,)
        yield from ((path, name) for name in map(str, names) if is_code_name(name))
    for keys, child in children(recipe):
        yield from _named(child, (*path, *keys))
