"""A resolved recipe as JSON, for a worker of vLLM in another process, and back: the same recipe, with the same id.

Sources go by absolute path or hub id, with their fingerprints. Methods of a person's own go by name, with the folder
they are imported from and a hash of their code: the worker imports that code, or says why it cannot.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from evomerge.errors import ConfigError
from evomerge.recipe.code import code_hash, is_code_name, load
from evomerge.recipe.holes import Hole
from evomerge.recipe.settings import Settings
from evomerge.recipe.spec import PartSettings
from evomerge.recipe.tree import Merge, Source, WeightRecipe, children, sources, with_sources
from evomerge.recipe.writing import to_plain
from evomerge.strategies.merge.protocol import Method
from evomerge.strategies.merge.registry import add, get


class WireSource(Settings):
    """What a source of the recipe holds."""

    model: str
    """Absolute path or hub id."""
    revision: str | None
    """Commit or tag on a hub."""
    fingerprint: str
    """Hash of its contents."""


class WireMethod(Settings):
    """Where a method of a person's own comes from."""

    name: str
    """What the recipe calls it, `my.module:method`."""
    folder: str
    """The folder that its module is imported from."""
    code: str
    """Hash of the file with its formula."""


class Wire(Settings):
    """A recipe with what its own text does not say."""

    recipe: dict[str, Any]
    """The recipe as it is written in a job."""
    sources: list[WireSource]
    """Each source once."""
    methods: list[WireMethod] = Field(default_factory=list[WireMethod])
    """Methods that are imported by name."""


def to_wire(recipe: WeightRecipe) -> dict[str, Any]:
    """Return a resolved recipe as JSON values; holes may be open. Raises ConfigError for a method without a file."""
    known = [
        WireSource(model=source.model, revision=source.revision, fingerprint=source.fingerprint)
        for source in dict.fromkeys(sources(recipe))
    ]
    methods = [_sent(name) for name in _own_methods(recipe)]
    return Wire(recipe=to_plain(recipe), sources=known, methods=methods).model_dump(mode="json")


def from_wire(wire: Mapping[str, Any]) -> WeightRecipe:
    """Return the recipe, whose own methods are imported here now.

    Raises ConfigError for what is no recipe, and for a method whose code is not here or is another here.
    """
    try:
        read = Wire.model_validate(wire)
        part = PartSettings.model_validate({"model": read.recipe})
    except ValidationError as error:
        raise ConfigError(
            f"what was sent is no recipe ({_first(error)}); is evomerge of one version on both sides?"
        ) from None
    for method in read.methods:
        _import(method)
    told = {(source.model, source.revision): source.fingerprint for source in read.sources}
    recipe = part.recipe()
    if missing := [source.model for source in sources(recipe) if (source.model, source.revision) not in told]:
        raise ConfigError(f"what was sent names no fingerprint for {missing[0]}")
    known = (Source(model, revision) for model, revision in told)
    return with_sources(
        recipe, {source: Source(source.model, source.revision, told[source.model, source.revision]) for source in known}
    )


def _own_methods(recipe: WeightRecipe) -> Sequence[str]:
    return sorted(name for name in set(_methods(recipe)) if is_code_name(name))


def _methods(recipe: WeightRecipe) -> Iterator[str]:
    if isinstance(recipe, Merge):
        yield from map(str, recipe.method.choices if isinstance(recipe.method, Hole) else (recipe.method,))
    for _, child in children(recipe):
        yield from _methods(child)


def _sent(name: str) -> WireMethod:
    module_name = name.partition(":")[0]
    code = code_hash(get(name).apply)
    file = getattr(sys.modules.get(module_name), "__file__", None)
    if file is None or not code:
        raise ConfigError(f"the merge method {name} has no file to be imported from; put it in a .py file")
    place = Path(file).absolute()
    levels = module_name.count(".") + (place.name == "__init__.py")
    return WireMethod(name=name, folder=str(place.parents[levels]), code=code)


_imported: dict[str, str] = {}
"""Hashes of the code of the methods that were imported here, as it was then."""


def _import(method: WireMethod) -> None:
    """Import a method, unless it is here with the same code."""
    if _imported.get(method.name) == method.code:
        return
    module_name = method.name.partition(":")[0]
    if not Path(method.folder).is_dir():
        raise ConfigError(
            f"the merge method {method.name} comes from {method.folder}, which the server's worker cannot see; "
            "use a method by its name, or a server on this machine"
        )
    if method.name in _imported:  # it was changed: what is loaded is what it was
        for loaded in [key for key in sys.modules if key == module_name or key.startswith(f"{module_name}.")]:
            del sys.modules[loaded]
    found = load(method.name, Path(method.folder))
    if not isinstance(found, Method):
        raise ConfigError(f"{method.name} is no merge method; put the decorator evomerge.method(...) on its formula")
    here = code_hash(found.apply)
    if here != method.code:
        raise ConfigError(
            f"the code of the merge method {method.name} in {method.folder} was changed since the study started; "
            "start the study again"
        )
    add(method.name, found)
    _imported[method.name] = here


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
