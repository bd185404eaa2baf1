"""Stacks: the layers of slices one upon the other, as the tensors of one model.

Here is decided which tensor of which recipe each tensor of the stack is, what the configuration of the result is, and
whether the slices fit; names, headers and configurations suffice for that, no tensor is read.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from evomerge.backends.weights.checkpoint import HEAD, Checkpoint
from evomerge.backends.weights.headers import Stored
from evomerge.backends.weights.layer_config import layers_in, stacked_config
from evomerge.errors import SourceError
from evomerge.recipe.groups import KNOWN_GROUPS, layer_of
from evomerge.recipe.tree import Stack

OUTPUTS = (
    "*.o_proj.*", "*.out_proj.*", "*.attn.c_proj.*", "*.attention.dense.*", "*.self_attention.dense.*",
    "*.down_proj.*", "*.down_proj", "*.mlp.c_proj.*", "*.mlp.dense_4h_to_h.*", "*.fc2.*", "*.w2.*", "*.w2",
)  # fmt: skip
"""What attention and mlp end with: the weights and biases that write to the stream between layers."""


def is_output(name: str) -> bool:
    """Return whether a tensor is what attention or mlp of a layer ends with."""
    return any(fnmatchcase(name, pattern) for pattern in OUTPUTS)


_NUMBER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)(?=\.|$)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor of a stack comes from: which of its `children`, and the tensor's name there."""

    child: int
    name: str
    scale: float = 1.0


@dataclass(frozen=True, eq=False)
class Stacked:
    """The form of a stack; `places` tells of every tensor where it comes from."""

    folder: Path
    config: Mapping[str, Any]
    stored: Mapping[str, Stored]
    places: Mapping[str, Place]
    head: Stored | None

    @property
    def renames_nothing(self) -> bool:
        """True where all tensors keep their names and values: the first layers of one model, or all of them."""
        return all(place.name == name and place.scale == 1 for name, place in self.places.items())

    def find(self, name: str) -> Stored | None:
        """Return a tensor's dtype and shape, those of the embedding for a tied head, or None."""
        return self.head if name == HEAD else self.stored.get(name)


Form = Checkpoint | Stacked
"""What a recipe's checkpoint looks like: folder, config, stored, find."""


@dataclass(frozen=True)
class Tower:
    """The layers of a model: what stands before the number in their tensors' names, and how many there are."""

    prefix: str
    count: int

    def names(self, form: Form, layer: int) -> Iterator[str]:
        """Yield the names of a layer's tensors without prefix and number."""
        start = f"{self.prefix}{layer}."
        return (name.removeprefix(start) for name in form.stored if name.startswith(start))


def tower(form: Form) -> Tower:
    """Return the layers of a model. Raises SourceError where names and configuration do not tell which they are."""
    counts: dict[str, int] = {}
    for name in form.stored:
        if found := _NUMBER.search(name):
            prefix = name[: found.start(1)]
            counts[prefix] = max(counts.get(prefix, 0), int(found.group(1)) + 1)
    said = layers_in(form.config)
    fitting = [Tower(prefix, count) for prefix, count in counts.items() if said is None or count == said]
    if len(fitting) != 1:
        raise SourceError(
            f"{form.folder}: its tensors' names do not tell which are the {said or ''} layers of its language model, "
            "so they cannot be stacked"
        )
    return fitting[0]


def stacked(stack: Stack, base: Form, slices: Sequence[Form]) -> Stacked:
    """Return the form of a stack of models with these forms; `base` is that of its base, or the first slice's again.

    In `places`, child 0 is the base and child i + 1 the slice i. Scales that are still holes count as 1. Raises
    SourceError for layers that are not there.
    """
    towers = [tower(form) for form in slices]
    own = tower(base)
    places: dict[str, Place] = {}
    found: dict[str, Stored] = {}
    for name, stored in base.stored.items():
        if name.startswith(own.prefix) and layer_of(name) is not None:
            continue
        after = stack.head == "last" and not any(fnmatchcase(name, known) for known in KNOWN_GROUPS["embeddings"])
        places[name] = Place(len(slices) if after else 0, name)
        found[name] = stored
    layers: list[tuple[Mapping[str, Any], int, Path]] = []
    for index, (item, form, part) in enumerate(zip(stack.slices, slices, towers, strict=True)):
        scale = float(item.scale) if isinstance(item.scale, int | float) else 1.0
        for layer in _range(item.layers, part, form, index):
            for rest in part.names(form, layer):
                there, name = f"{part.prefix}{layer}.{rest}", f"{own.prefix}{len(layers)}.{rest}"
                places[name] = Place(index + 1, there, scale if is_output(there) else 1.0)
                found[name] = form.stored[there]
            layers.append((form.config, layer, form.folder))
    head = base.find(HEAD)
    return Stacked(base.folder, stacked_config(base.config, layers), found, places, head)


def _range(layers: tuple[int, int] | None, part: Tower, form: Form, index: int) -> range:
    first, end = layers or (0, part.count)
    if end > part.count:
        raise SourceError(
            f"stack[{index}].layers: [{first}, {end}] reaches beyond the {part.count} layers of {form.folder}; "
            f"end at {part.count} or before"
        )
    return range(first, end)


def check_slices(stack: Stack, base: Form, slices: Sequence[Form]) -> None:
    """Raise SourceError for slices whose layers, or whose head, do not fit the base's."""
    own = tower(base)
    expected: dict[str, list[Stored]] = {}
    for layer in range(own.count):
        for rest in own.names(base, layer):
            expected.setdefault(rest, []).append(base.stored[f"{own.prefix}{layer}.{rest}"])
    for index, (item, form) in enumerate(zip(stack.slices, slices, strict=True)):
        part = tower(form)
        for layer in _range(item.layers, part, form, index):
            for rest in part.names(form, layer):
                name = f"{part.prefix}{layer}.{rest}"
                _check_shape(form.stored[name], expected.get(rest, []), name, index)
        if item.scale != 1:
            _check_outputs(form, part, index)
    if stack.head == "last":
        _check_head(base, slices[-1])


def _check_shape(found: Stored, expected: Sequence[Stored], name: str, index: int) -> None:
    if expected and found.shape not in {stored.shape for stored in expected}:
        raise SourceError(
            f"stack[{index}]: {found.file} has {name} of shape {list(found.shape)}, and in {expected[0].file} layers "
            f"have {list(expected[0].shape)} there; stack only layers of one width"
        )


def _check_outputs(form: Form, part: Tower, index: int) -> None:
    if not any(is_output(f"{part.prefix}0.{rest}") for rest in part.names(form, 0)):
        raise SourceError(
            f"stack[{index}].scale: the layers of {form.folder} have no known output projections to scale; "
            "remove the scale"
        )


def _check_head(base: Form, last: Form) -> None:
    own = tower(base)
    for name, stored in base.stored.items():
        found = last.find(name)
        if name.startswith(own.prefix) or any(fnmatchcase(name, known) for known in KNOWN_GROUPS["embeddings"]):
            continue
        if found is None or found.shape != stored.shape:
            what = "no such tensor" if found is None else f"{list(found.shape)}"
            raise SourceError(
                f"head: {stored.file} has {name} of shape {list(stored.shape)}, and {last.folder} has {what}; "
                "write head: base"
            )
