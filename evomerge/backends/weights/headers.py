"""The header of a safetensors file, read and checked by ourselves before any library maps the file.

A header that says anything twice, points outside the file or has a shape of another size than its data is refused with
a sentence that names the file. Names of tensors are kept as text; no path is ever made from one.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from evomerge.errors import SourceError

FLOATS: Mapping[str, int] = {"F32": 4, "F16": 2, "BF16": 2}
"""Names of the float types that can be merged, with their bytes an element."""

_OTHERS: Mapping[str, int] = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8}
_MAXIMUM_HEADER = 100_000_000
_AGAIN = "copy or download the file again"


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor as it stands in a file: `dtype` in the file format's own words (BF16, F32, I64, ...).

    `begin` is the position of its first byte in the file.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int = 0

    @property
    def is_float(self) -> bool:
        """True for the types that are merged; others are copied."""
        return self.dtype in FLOATS

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.elements * (FLOATS.get(self.dtype) or _OTHERS[self.dtype])


class _TwiceError(ValueError):
    """A key stands twice in one object."""


def read_header(file: Path) -> dict[str, Stored]:
    """Return the tensors of a safetensors file by name. Raises SourceError for a file that is missing or broken."""
    try:
        with file.open("rb") as stream:
            total = file.stat().st_size
            length = int.from_bytes(stream.read(8), "little")
            if total < 8 or not 2 <= length <= min(total - 8, _MAXIMUM_HEADER):
                raise SourceError(f"{file} is not a safetensors file, or was cut off in its header; {_AGAIN}")
            raw = stream.read(length)
    except OSError as error:
        raise SourceError(f"{file} cannot be read ({error.strerror}); check the path and its permissions") from None
    entries = _entries(file, raw)
    entries.pop("__metadata__", None)
    spans: list[tuple[int, int, str]] = []
    stored: dict[str, Stored] = {}
    for name, entry in entries.items():
        found, begin, end = _entry(file, name, entry)
        stored[name] = replace(found, begin=8 + length + begin)
        spans.append((begin, end, name))
    _check_spans(file, spans, total - 8 - length)
    return stored


def _entries(file: Path, raw: bytes) -> dict[str, Any]:
    try:
        entries = json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
    except _TwiceError as error:
        raise SourceError(f"{file}: its header names '{error}' twice; save the model again with safetensors") from None
    except (ValueError, RecursionError):
        raise SourceError(f"{file}: its header is not readable, so it is no safetensors file; {_AGAIN}") from None
    if not isinstance(entries, dict):
        raise SourceError(f"{file}: its header is not a map of tensors, so it is no safetensors file; {_AGAIN}")
    return cast(dict[str, Any], entries)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _TwiceError(key)
        found[key] = value
    return found


def _entry(file: Path, name: str, entry: Any) -> tuple[Stored, int, int]:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]} if all(
            isinstance(side, int) and side >= 0 for side in shape
        ):
            pass
        case _:
            raise SourceError(f"{file}: the header's entry for '{name}' is not that of a tensor; {_AGAIN}")
    if dtype not in FLOATS and dtype not in _OTHERS:
        raise SourceError(
            f"{file}: the tensor {name} is stored as {dtype}; save the model as bf16, fp16 or float32 first"
        )
    stored = Stored(file, dtype, tuple(cast(list[int], shape)))
    if stored.elements == 0:
        raise SourceError(f"{file}: the tensor {name} is empty (shape {list(stored.shape)}); save the model again")
    if end - begin != stored.size:
        raise SourceError(
            f"{file}: the tensor {name} has {end - begin} bytes where its shape needs {stored.size}; {_AGAIN}"
        )
    return stored, begin, end


def _check_spans(file: Path, spans: list[tuple[int, int, str]], available: int) -> None:
    """Refuse data that is missing, left over, or shared by two tensors."""
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise SourceError(f"{file}: the data of {name} do not follow those of the tensor before it; {_AGAIN}")
        position = end
    if position > available:
        raise SourceError(f"{file} was cut off: {position - available} bytes of its tensors are missing; {_AGAIN}")
    if position < available:
        raise SourceError(f"{file} has {available - position} bytes that belong to no tensor; {_AGAIN}")
