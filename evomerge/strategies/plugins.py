"""What other packages add to a registry: imported when it is first asked; a broken one harms nobody else."""

import warnings
from importlib.metadata import entry_points
from typing import Any


def load_plugins(group: str, what: str, declared: dict[str, Any]) -> None:
    """Import the entry points of a group, which declare something; `declared` is where that goes.

    One that fails leaves nothing behind but a RuntimeWarning that says that `what` it offers is left out.
    """
    for point in entry_points(group=group):
        before = dict(declared)
        try:
            point.load()
        except Exception as error:  # whatever a stranger's package does at import, the others go on
            declared.clear()
            declared.update(before)
            warnings.warn(
                f"the {what} of {point.value} (entry point '{point.name}') are left out: "
                f"{type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=3,
            )
