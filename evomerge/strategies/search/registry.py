"""Which search strategies there are, by name: our own and those of other packages.

A strategy is a function decorated with `@strategy`; other packages name a module that holds one as an entry point of
the group `evomerge.strategies`. A plugin that cannot be loaded warns and is skipped. Importing this loads no optimizer.
"""

import difflib
import functools
import importlib
import importlib.metadata
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from evomerge.strategies.search.protocol import Factory

ENTRY_POINTS = "evomerge.strategies"
_OURS = ("cma", "de", "grid", "pso", "random", "tbpsa")


@dataclass(frozen=True, slots=True)
class Registered:
    """A strategy's name, the settings it reads besides the seed, and how it is made.

    `several` makes it for several objectives; None where it learns from one number only.
    """

    name: str
    settings: frozenset[str]
    make: Factory
    several: Factory | None = None


_registry: dict[str, Registered] = {}


def strategy(
    name: str, *, settings: Sequence[str] = (), several: Factory | Literal["same"] | None = None
) -> Callable[[Factory], Factory]:
    """Register a factory under `name`; `settings` are the fields of `StrategySettings` that it reads besides the seed.

    `several` is another factory for searches with several objectives, or "same" where this one does for them too;
    without it such searches are refused.

    Raises ValueError for a name that is taken.
    """

    def register(make: Factory) -> Factory:
        if name in _registry:
            raise ValueError(f"there is already a search strategy named '{name}'")
        many = make if several == "same" else several
        _registry[name] = Registered(name, frozenset(settings), make, many)
        return make

    return register


@functools.cache
def _load() -> None:
    """Import every module that registers a strategy, once."""
    for module in _OURS:
        importlib.import_module(f"evomerge.strategies.search.{module}")
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception as error:  # whatever a plugin does wrong, the others still work
            warnings.warn(
                f"the search strategy plugin '{entry.name}' ({entry.value}) does not load and is skipped: {error}",
                RuntimeWarning,
                stacklevel=2,
            )


def strategy_names() -> tuple[str, ...]:
    """Return the names of all strategies, sorted."""
    _load()
    return tuple(sorted(_registry))


def learning_from_several() -> tuple[str, ...]:
    """Return the names of the strategies that learn from several objectives, sorted."""
    return tuple(name for name in strategy_names() if _registry[name].several is not None)


def find(name: str) -> Registered:
    """Return the strategy of this name. Raises ValueError with the nearest name where there is none."""
    names = strategy_names()
    if name not in _registry:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(names)}"
        raise ValueError(f"there is no search strategy '{name}'; {hint}")
    return _registry[name]
