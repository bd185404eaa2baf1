"""Writing safetensors as a stream: headers are known before a tensor is computed, and tensors come in any order.

Memory holds one tensor. Files that are to be durable are flushed to the disk before they are closed; names and sizes
follow the conventions that transformers reads (one file, or numbered shards with an index).
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from evomerge.backends.weights.headers import Stored
from evomerge.backends.weights.raw import Raw

SHARD_BYTES = 5_000_000_000
"""Largest file that is written, unless a single tensor is larger."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor's bytes go."""

    file: str
    offset: int
    size: int


def write_model(
    folder: Path,
    outline: Mapping[str, Stored],
    tensors: Iterable[tuple[str, Raw]],
    *,
    shard_bytes: int = SHARD_BYTES,
    durable: bool = True,
) -> None:
    """Write `tensors` as model.safetensors, or as shards of at most `shard_bytes` with an index.

    `outline` says dtype and shape of each tensor that will come. Unless `durable`, the system decides when the bytes
    reach the disk. Raises ValueError for a tensor that differs from the outline, or for one that does not come.
    """
    shards = list(_shards(outline, shard_bytes))
    names = _file_names(len(shards))
    write_tensors(folder, dict(zip(names, shards, strict=True)), tensors, durable=durable)
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(tensor.size for tensor in outline.values())},
            "weight_map": {name: file for file, shard in zip(names, shards, strict=True) for name in shard},
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def write_tensors(
    folder: Path,
    files: Mapping[str, Mapping[str, Stored]],
    tensors: Iterable[tuple[str, Raw]],
    *,
    durable: bool = True,
) -> None:
    """Write `tensors` into `files`, each a map of the tensors it will hold. Raises ValueError as `write_model` does."""
    places: dict[str, _Place] = {}
    with ExitStack() as stack:
        streams: dict[str, BinaryIO] = {}
        for file, outline in files.items():
            streams[file] = stack.enter_context((folder / file).open("xb"))
            places |= _begin(streams[file], file, outline)
        for name, tensor in tensors:
            place = places.pop(name)
            if tensor.elements.nbytes != place.size:
                raise ValueError(f"{name} has {tensor.elements.nbytes} bytes where {place.size} were announced")
            streams[place.file].seek(place.offset)
            streams[place.file].write(tensor.elements.data)
        if places:
            raise ValueError(f"{next(iter(places))} was announced and did not come")
        for stream in streams.values():
            stream.flush()
            if durable:
                os.fsync(stream.fileno())


def _begin(stream: BinaryIO, file: str, outline: Mapping[str, Stored]) -> dict[str, _Place]:
    """Write a header and return where each tensor goes: wide types first, so that each is aligned to its type."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    ends: dict[str, tuple[int, int]] = {}
    position = 0
    for name, tensor in sorted(outline.items(), key=lambda item: -(item[1].size // item[1].elements)):
        ends[name] = (position, position + tensor.size)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": list(ends[name])}
        position += tensor.size
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    stream.write(len(raw).to_bytes(8, "little") + raw)
    return {name: _Place(file, 8 + len(raw) + begin, end - begin) for name, (begin, end) in ends.items()}


def _shards(outline: Mapping[str, Stored], limit: int) -> Iterator[dict[str, Stored]]:
    shard: dict[str, Stored] = {}
    for name, tensor in outline.items():
        if shard and sum(other.size for other in shard.values()) + tensor.size > limit:
            yield shard
            shard = {}
        shard[name] = tensor
    yield shard


def _file_names(count: int) -> Sequence[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
