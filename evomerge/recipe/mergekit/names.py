"""Which parameters a file of mergekit may name: those of its method, and those that change nothing."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from evomerge.errors import ConfigError
from evomerge.recipe.mergekit.grammar import Parameters
from evomerge.recipe.mergekit.methods import EVERY, HARMLESS, METHODS, PASSTHROUGH, Method
from evomerge.recipe.mergekit.values import unexpressed
from evomerge.recipe.reading import Document, KeyPath

Scope = tuple[Parameters | None, KeyPath]
"""Parameters, and what they belong to."""


def method_of(name: str, document: Document) -> Method | None:
    """Return a method of mergekit by its name, None for passthrough. Raises ConfigError for one that is not known."""
    if name == PASSTHROUGH:
        return None
    if name not in METHODS:
        known = [*METHODS, PASSTHROUGH]
        sentence = f"there is no method {name!r} here{_near(name, known)}; known are {', '.join(known)}"
        raise document.error(("merge_method",), sentence)
    return METHODS[name]


def unused(method: Method | None, scopes: Iterable[Scope], document: Document) -> Iterator[str]:
    """Yield a note for every parameter that changes nothing.

    Raises ConfigError for one that no method of mergekit has, and for a value that ours cannot have.
    """
    known = {"scale"} if method is None else {*method.merge, *method.models}
    for params, place in scopes:
        for name, written in (params or {}).items():
            path = (*place, "parameters", name)
            if method is not None and name in method.at:
                if written != method.at[name]:
                    raise unexpressed(document, path, written)
            elif name in HARMLESS:
                yield str(document.error(path, f"is left out; {HARMLESS[name]}"))
            elif name not in EVERY:
                raise _unknown(name, document, path)
            elif name not in known:
                yield str(document.error(path, "is left out; it has no effect on this method"))


def _unknown(name: str, document: Document, path: KeyPath) -> ConfigError:
    near = _near(name, sorted(EVERY))
    return document.error(path, f"no method of mergekit has this parameter{near or '; remove it'}")


def _near(name: str, known: list[str]) -> str:
    found = get_close_matches(name, known, n=1)
    return f"; did you mean '{found[0]}'?" if found else ""
