"""The version of evomerge, and those of the libraries that decide what a study does."""

from importlib.metadata import PackageNotFoundError, version

__version__ = "0.1.0"

_DECIDING = ("nevergrad", "cma", "numpy", "torch", "transformers")


def versions() -> dict[str, str]:
    """Return the versions that a study records, of what is installed."""
    found = {"evomerge": __version__}
    for name in _DECIDING:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
