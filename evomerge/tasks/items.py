"""Items: what stands in a data file, read into memory.

JSONL and CSV files are read as UTF-8; whatever cannot be an item is refused with the file, the line and what is wrong
with it, and nothing is guessed. An item's id is a hash of its fields, so it is the same on every machine and whatever
the line it stands on. What an item asks is not known here.
"""

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evomerge.errors import SourceError
from evomerge.recipe.files import read_file

SHOWN_FIELDS = 12
MAX_DIGITS = 4000

_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a data file: its fields (numbers, words and lists from JSONL, words from CSV) and where it stands.

    `id` is 16 hexadecimal digits of the SHA-256 of the fields' canonical JSON; `line` counts from 1 and `file` is the
    name that the job has for the file. Two items with the same fields are equal, wherever they stand.
    """

    id: str
    line: int = field(compare=False)
    fields: Mapping[str, Any] = field(repr=False, hash=False)
    file: str = field(default="", compare=False)

    @property
    def where(self) -> str:
        """Where the item stands, as `file:line`."""
        return f"{self.file}:{self.line}"

    @property
    def field_names(self) -> str:
        """The names of the fields as a list for a message; of very many only the first."""
        names = [repr(name) for name in list(self.fields)[:SHOWN_FIELDS]]
        return ", ".join(names) + (", …" if len(self.fields) > SHOWN_FIELDS else "")


def read_items(path: Path, name: str) -> tuple[Item, ...]:
    """Return the items of a JSONL (`.jsonl`, `.ndjson`) or CSV (`.csv`) file, in its order; `name` is for messages.

    Raises SourceError for a file that is missing, empty, binary or of another kind, and for the first line that is
    broken.
    """
    readers = {".jsonl": _jsonl, ".ndjson": _jsonl, ".csv": _csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise SourceError(
            f"{name}: a data file ends in .jsonl (one JSON object a line) or .csv; convert it to one of them"
        )
    items = tuple(
        Item(id=short_hash(fields), line=line, fields=fields, file=name)
        for line, fields in reader(_bytes(path, name), name)
    )
    if not items:
        raise SourceError(f"{name}: there is no item in this file; put one on each line")
    return items


def _bytes(path: Path, name: str) -> bytes:
    relative = " (it is relative to the job's file)"
    raw = read_file(path, name, wanted="data file", relative=relative, error=SourceError)
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SourceError(f"{name}: this file is in UTF-16; save it as UTF-8")
    nul = raw.find(b"\0")
    if nul >= 0:
        line = raw.count(b"\n", 0, nul) + 1
        raise SourceError(f"{name}:{line}: there is a NUL byte here, so this is not a text file; is it the right one?")
    return raw.removeprefix(b"\xef\xbb\xbf")


def _text(raw: bytes, name: str, first_line: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first_line + raw.count(b"\n", 0, error.start)
        raise SourceError(
            f"{name}:{line}: this is not UTF-8 (byte 0x{raw[error.start]:02x}); save the file as UTF-8"
        ) from None


def _jsonl(raw: bytes, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number and fields. Only a line feed ends a line: other separators may stand in a string."""
    for line, row in enumerate(raw.split(b"\n"), start=1):
        text = _text(row, name, line).strip(" \t\r")
        if text:
            yield line, _object(text, f"{name}:{line}")


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(
            text, object_pairs_hook=_no_key_twice, parse_float=_finite, parse_constant=_finite, parse_int=_whole
        )
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{where}: this is not JSON: {error.msg} (column {error.colno}); write one object a line"
        ) from None
    except ValueError as error:
        raise SourceError(f"{where}: {error}") from None
    except RecursionError:
        raise SourceError(f"{where}: this JSON is nested too deeply; an item is a flat object of fields") from None
    if not isinstance(value, dict):
        raise SourceError(f'{where}: an item is a JSON object of fields, as in {{"question": …, "answer": …}}')
    if not value:
        raise SourceError(f"{where}: this item has no fields; give it some or remove the line")
    if "\\ud" in text.lower():
        _refuse_half_characters(value, where)
    return value  # pyright: ignore[reportUnknownVariableType]  # JSON


def _refuse_half_characters(value: Any, where: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise SourceError(f"{where}: a \\ud… escape here is half of a character; write the character itself") from None


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [key for key, _ in pairs]
        twice = next(key for key in names if names.count(key) > 1)
        raise ValueError(f"the field {twice!r} stands twice in this item; remove one")
    return fields


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a number that JSON can hold; write a finite number, or a string")
    return number


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number here has {len(text)} digits; write it as a string")
    return int(text)


def _csv(raw: bytes, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number and cells by column. A quoted cell may hold commas, line ends and doubled quotes."""
    # Read as a list at once, so that the limit on a cell's length, which is the module's own, is soon as it was.
    previous = csv.field_size_limit(max(len(raw), csv.field_size_limit()))
    try:
        rows = list(_csv_rows(_text(raw, name, 1), name))
    finally:
        csv.field_size_limit(previous)
    if not rows:
        return
    line, header = rows[0]
    if "" in header:
        raise SourceError(
            f"{name}:{line}: column {header.index('') + 1} has no name; the first line names every column"
        )
    twice = next((column for column in header if header.count(column) > 1), None)
    if twice is not None:
        raise SourceError(f"{name}:{line}: the column {twice!r} stands twice in the first line; rename one")
    for line, cells in rows[1:]:
        if len(cells) != len(header):
            raise SourceError(
                f"{name}:{line}: this row has {len(cells)} cells and the first line names {len(header)} columns; "
                'put a cell that holds commas between "quotes"'
            )
        yield line, dict(zip(header, cells, strict=True))


def _csv_rows(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for cells in rows:
            if cells:
                yield line, cells
            line = rows.line_num + 1
    except csv.Error as error:
        raise SourceError(f"{name}:{line}: this row is not CSV ({error}); check its quotes") from None


def short_hash(value: Any) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of a JSON-like value, whatever the order of its keys."""
    return hashlib.sha256(_canonical.encode(value).encode()).hexdigest()[:16]
