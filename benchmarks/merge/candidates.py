"""A candidate of a search: its models are mapped already, its genes are new, and its tensors end up in memory."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.merge.family import Family
from benchmarks.merge.floor import Floor
from benchmarks.merge.recipes import drawn, models_of, recipe_of, resolved
from benchmarks.merge.tables import ratio, seconds, table
from evomerge.backends.weights.raw import Raw
from evomerge.backends.weights.store import WeightStore
from evomerge.recipe.tree import Merge
from evomerge.strategies.merge.protocol import Method

_FAST = (
    "linear",
    "task_arithmetic",
    "ties",
    "dare_linear",
    "dare_ties",
    "breadcrumbs",
    "breadcrumbs_ties",
    "consensus",
)
_MIDDLE = ("slerp", "nuslerp", "model_stock", "sce", "della", "della_linear", "emr", "magmax")
_SLOW = ("pcb", "widen", "karcher")
WANTED: Mapping[str, int] = {name: times for names, times in ((_FAST, 2), (_MIDDLE, 4), (_SLOW, 10)) for name in names}
"""How many times the floor a candidate may take."""


@dataclass
class Times:
    """Seconds of one method, in the order in which they were measured: those of a round belong together."""

    models: int
    first: float
    floor: list[float] = field(default_factory=list[float])
    new: list[float] = field(default_factory=list[float])
    same: list[float] = field(default_factory=list[float])


def room(store: WeightStore, recipe: Merge) -> dict[str, Raw]:
    """Return memory for a candidate, written once so that it is there."""
    found = {name: Raw.empty(item.dtype, item.shape) for name, item in store.outline(recipe).items()}
    for raw in found.values():
        raw.elements[:] = 0
    return found


def materialise(store: WeightStore, recipe: Merge, into: Mapping[str, Raw]) -> None:
    """Compute a candidate into memory: the one call that is measured."""
    for _ in store.raws(recipe, into.get):
        pass


def measured(methods: Sequence[Method], family: Family, floor: Floor, repeats: int) -> dict[str, Times]:
    """Measure every method in turn, again and again; what is prepared once a study falls into `first`."""
    store = WeightStore()
    recipes = {method.name: resolved(store, recipe_of(method, family), family) for method in methods}
    into = room(store, next(iter(recipes.values())))
    for count in {models_of(recipe) for recipe in recipes.values()}:
        floor.run(count)
    found: dict[str, Times] = {}
    for number in range(repeats + 1):
        for method in methods:
            recipe = drawn(recipes[method.name], method, number)
            took = floor.run(models_of(recipe))
            new = _timed(store, recipe, into)
            if number == 0:
                found[method.name] = Times(models_of(recipe), new)
                continue
            times = found[method.name]
            times.floor.append(took)
            times.new.append(new)
            times.same.append(_timed(store, recipe, into))
    return found


def shown(found: Mapping[str, Times]) -> str:
    """Return the table."""
    header = ("method", "models", "floor, s", "new genes, s", "times the floor", "at most", "same genes, s", "first, s")
    rows = [
        (
            name,
            str(times.models),
            seconds(times.floor),
            seconds(times.new),
            ratio(times.new, times.floor),
            str(WANTED.get(name, "")),
            seconds(times.same),
            f"{times.first:.3g}",
        )
        for name, times in found.items()
    ]
    return table(header, rows)


def _timed(store: WeightStore, recipe: Merge, into: Mapping[str, Raw]) -> float:
    begin = time.perf_counter()
    materialise(store, recipe, into)
    return time.perf_counter() - begin
