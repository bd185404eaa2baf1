"""Broken safetensors files are refused with one sentence that names the file."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from evomerge.backends.weights.headers import read_header
from evomerge.errors import SourceError


def write(file: Path, header: str | bytes, data: bytes = b"") -> Path:
    raw = header.encode() if isinstance(header, str) else header
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return file


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.fixture
def whole(file: Path) -> Path:
    save_file({"a": torch.ones(3, 2), "b": torch.ones(4, dtype=torch.bfloat16), "n": torch.arange(3)}, file)
    return file


def test_a_sound_file_tells_names_types_and_shapes(whole: Path):
    found = read_header(whole)
    assert {name: (t.dtype, t.shape, t.size) for name, t in found.items()} == {
        "a": ("F32", (3, 2), 24),
        "b": ("BF16", (4,), 8),
        "n": ("I64", (3,), 24),
    }
    assert [name for name, tensor in found.items() if tensor.is_float] == ["a", "b"]


def test_a_file_cut_off_anywhere_is_refused(whole: Path):
    content = whole.read_bytes()
    for length in range(len(content)):
        whole.write_bytes(content[:length])
        with pytest.raises(SourceError, match=r"model\.safetensors.*again$"):
            read_header(whole)


def test_bytes_after_the_last_tensor_are_refused(whole: Path):
    whole.write_bytes(whole.read_bytes() + b"\0")
    with pytest.raises(SourceError, match="1 bytes that belong to no tensor"):
        read_header(whole)


def test_random_bytes_never_raise_anything_else(file: Path):
    rng = random.Random(0)
    for _ in range(300):
        size = rng.randrange(64)
        file.write_bytes(rng.choice([b"", size.to_bytes(8, "little")]) + rng.randbytes(size))
        with pytest.raises(SourceError, match=r"model\.safetensors"):
            read_header(file)


def test_a_changed_byte_in_the_header_is_refused_or_gives_a_sound_header(whole: Path):
    content, rng = whole.read_bytes(), random.Random(1)
    for _ in range(500):
        changed = bytearray(content)
        changed[rng.randrange(200)] = rng.randrange(256)
        whole.write_bytes(bytes(changed))
        try:
            found = read_header(whole)
        except SourceError:
            continue
        assert sum(tensor.size for tensor in found.values()) == 56


def test_a_name_that_stands_twice_is_refused(file: Path):
    one = json.dumps(entry([2], 0, 8))
    write(file, f'{{"a": {one}, "a": {one}}}', bytes(8))
    with pytest.raises(SourceError, match="names 'a' twice"):
        read_header(file)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, 12, "do not follow"),
        ({"a": entry([2], 8, 16)}, 16, "do not follow"),
        ({"a": entry([3], 0, 8)}, 8, "8 bytes where its shape needs 12"),
        ({"a": entry([0, 4], 0, 0)}, 0, "is empty"),
        ({"a": entry([2], 0, 2, "F8_E4M3")}, 2, "F8_E4M3; save the model as"),
        ({"a": entry([-2], 0, 8)}, 8, "not that of a tensor"),
        ({"a": {"dtype": "F32"}}, 8, "not that of a tensor"),
        ({"a": [1]}, 8, "not that of a tensor"),
        ([1, 2], 0, "not a map of tensors"),
    ],
)
def test_entries_that_cannot_be_are_refused(file: Path, header: Any, data: int, message: str):
    write(file, json.dumps(header), bytes(data))
    with pytest.raises(SourceError, match=message) as raised:
        read_header(file)
    assert str(file) in str(raised.value)


def test_a_header_nested_a_million_deep_is_refused(file: Path):
    write(file, '{"a":' * 1_000_000 + "1" + "}" * 1_000_000)
    with pytest.raises(SourceError, match="not readable"):
        read_header(file)


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(SourceError, match=r"gone\.safetensors cannot be read \(No such file"):
        read_header(tmp_path / "gone.safetensors")
