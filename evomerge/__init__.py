"""Searches, without gradients, for the best way to combine language models that already exist.

The public names of the package, in one flat list. Each is imported from its room when it is first used (PEP 562), so
that `import evomerge` is quick and loads neither torch nor nevergrad.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evomerge.backends.local import LocalBackend
    from evomerge.backends.weights.export import export
    from evomerge.backends.weights.store import WeightStore
    from evomerge.errors import (
        BackendError,
        CandidateError,
        ConfigError,
        EndpointPaused,
        EvomergeError,
        SourceError,
        StudyBroken,
        StudyChanged,
        StudyLocked,
    )
    from evomerge.recipe.groups import Layout
    from evomerge.recipe.holes import Hole
    from evomerge.recipe.space import Gene, Space
    from evomerge.recipe.tree import (
        Endpoint,
        Ensemble,
        Input,
        Member,
        Merge,
        Per,
        Recipe,
        Result,
        Slice,
        Source,
        Stack,
        recipe_id,
    )
    from evomerge.recipe.values import ByGroup, ByPattern, Gradient
    from evomerge.recipe.writing import to_plain
    from evomerge.strategies.merge.protocol import Needs, Parameter, Parameters, TensorContext
    from evomerge.strategies.merge.registry import method
    from evomerge.study.backends import make_backend
    from evomerge.study.fitness import Fitness, Interval
    from evomerge.study.job import Job, load_job, load_recipe
    from evomerge.study.loop import Trial
    from evomerge.study.prepare import Prepared, prepare
    from evomerge.study.result import Outcome
    from evomerge.study.search import Found, search
    from evomerge.study.study import Stopped, Study
    from evomerge.version import __version__

__all__ = [
    "BackendError",
    "ByGroup",
    "ByPattern",
    "CandidateError",
    "ConfigError",
    "Endpoint",
    "EndpointPaused",
    "Ensemble",
    "EvomergeError",
    "Fitness",
    "Found",
    "Gene",
    "Gradient",
    "Hole",
    "Input",
    "Interval",
    "Job",
    "Layout",
    "LocalBackend",
    "Member",
    "Merge",
    "Needs",
    "Outcome",
    "Parameter",
    "Parameters",
    "Per",
    "Prepared",
    "Recipe",
    "Result",
    "Slice",
    "Source",
    "SourceError",
    "Space",
    "Stack",
    "Stopped",
    "Study",
    "StudyBroken",
    "StudyChanged",
    "StudyLocked",
    "TensorContext",
    "Trial",
    "WeightStore",
    "__version__",
    "export",
    "load_job",
    "load_recipe",
    "make_backend",
    "method",
    "prepare",
    "recipe_id",
    "search",
    "to_plain",
]

_ROOMS = {
    "backends.local": ("LocalBackend",),
    "backends.weights.export": ("export",),
    "backends.weights.store": ("WeightStore",),
    "errors": (
        "BackendError",
        "CandidateError",
        "ConfigError",
        "EndpointPaused",
        "EvomergeError",
        "SourceError",
        "StudyBroken",
        "StudyChanged",
        "StudyLocked",
    ),
    "recipe.groups": ("Layout",),
    "recipe.holes": ("Hole",),
    "recipe.space": ("Gene", "Space"),
    "recipe.tree": (
        "Endpoint",
        "Ensemble",
        "Input",
        "Member",
        "Merge",
        "Per",
        "Recipe",
        "Result",
        "Slice",
        "Source",
        "Stack",
        "recipe_id",
    ),
    "recipe.values": ("ByGroup", "ByPattern", "Gradient"),
    "recipe.writing": ("to_plain",),
    "strategies.merge.protocol": ("Needs", "Parameter", "Parameters", "TensorContext"),
    "strategies.merge.registry": ("method",),
    "study.backends": ("make_backend",),
    "study.fitness": ("Fitness", "Interval"),
    "study.job": ("Job", "load_job", "load_recipe"),
    "study.loop": ("Trial",),
    "study.prepare": ("Prepared", "prepare"),
    "study.result": ("Outcome",),
    "study.search": ("Found", "search"),
    "study.study": ("Stopped", "Study"),
    "version": ("__version__",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


if not TYPE_CHECKING:  # where type checkers saw it, they would take any name for a good one

    def __getattr__(name: str) -> Any:
        """Import a public name from its room."""
        if name not in _ROOM_OF:
            raise AttributeError(f"module 'evomerge' has no attribute {name!r}")
        value = getattr(import_module(f"evomerge.{_ROOM_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
