"""The dialects there are: ours, and those of packages that offer an entry point in the group `evomerge.dialects`.

A dialect is declared by the decorator `@dialect("name")` on its class. A plugin that cannot be imported is left out
with a warning and harms nobody else.
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import TypeVar

from evomerge.backends.api.dialects.protocol import Dialect
from evomerge.errors import ConfigError
from evomerge.strategies.merge.registry import nearest
from evomerge.strategies.plugins import load_plugins

ENTRY_POINTS = "evomerge.dialects"
"""Group of entry points: each names a module, or something in it, whose import declares dialects."""

_HOUSE = ("openai_chat", "openai_completions", "anthropic")
_declared: dict[str, Dialect] = {}
Made = TypeVar("Made", bound=type)


def dialect(name: str) -> Callable[[Made], Made]:
    """Return a decorator that registers a class of dialect, made without arguments.

    Raises ValueError where another class has the name already.
    """

    def declare(made: Made) -> Made:
        known = _declared.get(name)
        if known is not None and _place(type(known)) != _place(made):
            raise ValueError(f"the dialect '{name}' is declared twice: by {_place(type(known))} and {_place(made)}")
        _declared[name] = made()
        return made

    return declare


def dialects() -> Mapping[str, Dialect]:
    """Return every dialect by its name, in alphabetical order. Warns (RuntimeWarning) about a broken plugin."""
    _load()
    return dict(sorted(_declared.items()))


def get(name: str) -> Dialect:
    """Return the dialect of that name. Raises ConfigError, naming the nearest known one."""
    known = dialects()
    if name not in known:
        raise ConfigError(f"there is no dialect '{name}'{nearest(name, known)}; known are {', '.join(known)}")
    return known[name]


@cache
def _load() -> None:
    for module in _HOUSE:
        import_module(f"evomerge.backends.api.dialects.{module}")
    load_plugins(ENTRY_POINTS, "dialects", _declared)


def _place(made: type) -> str:
    return f"{made.__module__}.{made.__qualname__}"
