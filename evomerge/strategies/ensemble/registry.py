"""The combiners there are: ours, and those of packages that offer an entry point in the group `evomerge.combiners`.

A combiner is declared by the decorator `@combiner(...)` on its rule. A plugin that cannot be imported is left out with
a warning and harms nobody else.
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module

from evomerge.errors import ConfigError
from evomerge.strategies.ensemble.protocol import Combine, Combiner
from evomerge.strategies.merge.protocol import Parameter
from evomerge.strategies.merge.registry import nearest
from evomerge.strategies.plugins import load_plugins

ENTRY_POINTS = "evomerge.combiners"
"""Group of entry points: each names a module, or something in it, whose import declares combiners."""

_HOUSE = ("vote",)
_declared: dict[str, Combiner] = {}


def combiner(name: str, *, title: str, parameters: tuple[Parameter, ...], source: str) -> Callable[[Combine], Combiner]:
    """Return a decorator that turns a rule into a registered `Combiner`.

    Raises ValueError where another rule has the name already.
    """

    def declare(combine: Combine) -> Combiner:
        known = _declared.get(name)
        if known is not None and _place(known.combine) != _place(combine):
            raise ValueError(
                f"the combiner '{name}' is declared twice: by {_place(known.combine)} and {_place(combine)}"
            )
        _declared[name] = Combiner(name, title, parameters, source, combine)
        return _declared[name]

    return declare


def combiners() -> Mapping[str, Combiner]:
    """Return every combiner by its name, in alphabetical order. Warns (RuntimeWarning) about a broken plugin."""
    _load()
    return dict(sorted(_declared.items()))


def get(name: str) -> Combiner:
    """Return the combiner of that name. Raises ConfigError, naming the nearest known one."""
    known = combiners()
    if name not in known:
        raise ConfigError(f"there is no combiner '{name}'{nearest(name, known)}; known are {', '.join(known)}")
    return known[name]


@cache
def _load() -> None:
    for module in _HOUSE:
        import_module(f"evomerge.strategies.ensemble.{module}")
    load_plugins(ENTRY_POINTS, "combiners", _declared)


def _place(combine: Combine) -> str:
    return f"{getattr(combine, '__module__', '?')}.{getattr(combine, '__qualname__', '?')}"
