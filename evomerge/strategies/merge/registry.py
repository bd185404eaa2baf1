"""The merge methods there are: ours, and those of packages that offer an entry point in the group `evomerge.methods`.

A method is declared by the decorator `@method(...)` on its formula. Declaring needs no torch, so listing methods,
making the schema and checking a recipe start at once; formulas import torch when they run. A plugin that cannot be
imported is left out with a warning and harms nobody else.
"""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib import import_module

from evomerge.errors import ConfigError
from evomerge.strategies.merge.protocol import (
    Apply,
    Coefficients,
    Evidence,
    Method,
    Mixture,
    Needs,
    Parameter,
    Parameters,
    Stage,
    TensorContext,
)
from evomerge.strategies.plugins import load_plugins

ENTRY_POINTS = "evomerge.methods"
"""Group of entry points: each names a module, or something in it, whose import declares methods."""

_FAMILIES = (
    "averages",
    "spherical",
    "ties",
    "dare",
    "breadcrumbs",
    "della",
    "sce",
    "pcb",
    "tall",
    "elected",
    "ram",
    "stock",
    "widen",
    "depth",
    "swaps",
)
_declared: dict[str, Method] = {}


def method(
    name: str,
    *,
    title: str,
    needs: Needs,
    parameters: tuple[Parameter, ...],
    source: str,
    evidence: Evidence,
    coefficients: Callable[[TensorContext, Parameters], Coefficients] | None = None,
    mixture: Mixture | None = None,
    stages: Callable[[Parameters], tuple[Stage, ...]] | None = None,
) -> Callable[[Apply], Method]:
    """Return a decorator that turns a formula into a registered `Method`.

    Raises ValueError where another formula has the name already.
    """

    def declare(apply: Apply) -> Method:
        declared = Method(name, title, needs, parameters, source, evidence, apply, coefficients, mixture, stages)
        known = _declared.get(name)
        if known is not None and _place(known.apply) != _place(apply):
            raise ValueError(
                f"the merge method '{name}' is declared twice: by {_place(known.apply)} and {_place(apply)}"
            )
        _declared[name] = declared
        return declared

    return declare


def add(name: str, declared: Method) -> None:
    """Make a method known under one more name, in place of what had it."""
    _load()
    _declared[name] = declared


def methods() -> Mapping[str, Method]:
    """Return every method by its name, in alphabetical order. Warns (RuntimeWarning) about a plugin that is broken."""
    _load()
    return dict(sorted(_declared.items()))


def get(name: str) -> Method:
    """Return the method of that name. Raises ConfigError, naming the nearest known one."""
    known = methods()
    if name not in known:
        raise ConfigError(f"there is no merge method '{name}'{nearest(name, known)}; known are {', '.join(known)}")
    return known[name]


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean '...'?" for the known word most like this one, or nothing where none is like it."""
    found = get_close_matches(word, list(known), n=1)
    return f"; did you mean '{found[0]}'?" if found else ""


@cache
def _load() -> None:
    for family in _FAMILIES:
        import_module(f"evomerge.strategies.merge.{family}")
    load_plugins(ENTRY_POINTS, "merge methods", _declared)


def _place(apply: Apply) -> str:
    return f"{getattr(apply, '__module__', '?')}.{getattr(apply, '__qualname__', '?')}"
