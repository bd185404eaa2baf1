"""The compiler's settings, in one place: how loops are compiled, and where the compiled code is kept.

Compiled code is kept in the user's cache folder, under a hash of these sources, so that only the first process of an
installation pays for compiling. Where that folder cannot be written, code is compiled anew in each process.
"""

import hashlib
import os
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import llvmlite.binding
import numba
import numba.extending
from numba.core import config

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"nsz"}}
"""Sums keep their order and products are rounded before they are added: opposite values cancel, and elect no sign."""

_ANY_ORDER: dict[str, Any] = {"fastmath": {"nsz", "reassoc"}}

_INLINED = {**_OPTIONS, "forceinline": True}
"""A loop in which a call is left does not work on many elements at once."""

_LLVM = ("--runtime-memory-check-threshold=256", "--vectorizer-maximize-bandwidth")
"""Whether the output overlaps an input is checked when a loop runs; beyond this number of checks (8 without it, which
is passed with five models) the compiler leaves a loop one element at a time. The second has it fill its vectors with
the narrowest numbers of a loop: 512 bits then hold its floats, and it is 1.6 times as fast where there are such
registers."""

# some kernels for very many models cannot be kept, and are compiled anew in each process: nothing a user has to know
warnings.filterwarnings("ignore", "Cannot cache compiled function", numba.NumbaWarning)

for _option in _LLVM:
    llvmlite.binding.set_option("evomerge", _option)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function when it is first called with arguments of new types. It runs without Python's lock."""
    return _compiled(function, _OPTIONS)


def compiled_in_any_order(function: Callable[P, R]) -> Callable[P, R]:
    """Compile as `compiled`; sums may be added up in the order that is fastest, which is the same in every run."""
    return _compiled(function, _OPTIONS | _ANY_ORDER)


def _compiled(function: Callable[P, R], options: dict[str, Any]) -> Callable[P, R]:
    folder = _cache_folder()
    settings, njit = cast(Any, config), cast(Any, numba.njit)
    before = settings.CACHE_DIR
    settings.CACHE_DIR = before if folder is None else str(folder)
    try:
        return cast("Callable[P, R]", njit(cache=folder is not None, **options)(function))
    finally:
        settings.CACHE_DIR = before


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a small function as a part of those that call it, whatever its length."""
    return cast("Callable[P, R]", cast(Any, numba.njit)(**_INLINED)(function))


def inlined_in_any_order(function: Callable[P, R]) -> Callable[P, R]:
    """Compile as `inlined`, and sums as `compiled_in_any_order`: what calls a function has no say in its sums."""
    return cast("Callable[P, R]", cast(Any, numba.njit)(**(_INLINED | _ANY_ORDER))(function))


def overload(function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator for the function that, given the arguments' types, returns what `function` does for them."""
    return cast(
        "Callable[[Callable[..., Any]], Callable[..., Any]]",
        cast(Any, numba.extending.overload)(function, jit_options=_INLINED),
    )


@cache
def _cache_folder() -> Path | None:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evomerge" / "kernels"
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    folder = root / digest.hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
