"""A person's own functions, named in YAML as `my.module:function` and imported from the folder of the file.

Importing runs the module, in this process and with the user's rights: a file from a stranger that names one is a
program from a stranger.
"""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evomerge.errors import ConfigError


def is_code_name(name: str) -> bool:
    """Return whether a text names a module and something in it."""
    module, colon, function = name.partition(":")
    return bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def load(name: str, root: Path) -> Any:
    """Return what `my.module:name` names, imported with `root` on the path (or from an installed package).

    Raises ConfigError where the module cannot be imported, or has nothing of that name.
    """
    module_name, _, own = name.partition(":")
    with _importing_from(root, module_name):
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            # Importing runs a person's own code, which may raise anything.
            raise ConfigError(
                f"{name} cannot be imported from {root} ({type(error).__name__}: {error}); check the module's name"
            ) from error
    if not hasattr(module, own):
        raise ConfigError(f"{name}: there is no function {own!r} in {module.__file__ or module_name}")
    return getattr(module, own)


def code_hash(function: Any) -> str:
    """Return a hash of the file that a function stands in; empty where it has none (a compiled module)."""
    try:
        return hashlib.sha256(Path(inspect.getfile(function)).read_bytes()).hexdigest()[:16]
    except (OSError, TypeError):
        return ""


@contextmanager
def _importing_from(root: Path, module_name: str) -> Generator[None]:
    """Put the folder on the path, and forget modules of the same name that came from another folder."""
    folder = root.resolve()
    top = module_name.partition(".")[0]
    if (folder / top).is_dir() or (folder / f"{top}.py").is_file():
        for loaded in [key for key in sys.modules if key == top or key.startswith(f"{top}.")]:
            file = getattr(sys.modules[loaded], "__file__", None)
            if file is None or not Path(file).resolve().is_relative_to(folder):
                del sys.modules[loaded]
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
