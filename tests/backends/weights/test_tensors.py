"""Sharded models: the index and the shards must agree, and nothing outside the folder is ever opened."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from evomerge.backends.weights.tensors import TensorFiles, model_files, read_json
from evomerge.errors import SourceError

INDEX = "model.safetensors.index.json"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    save_file({"a": torch.ones(2), "../../b": torch.full((3,), 2.0)}, tmp_path / "one.safetensors")
    save_file({"c": torch.zeros(1)}, tmp_path / "two.safetensors")
    place(tmp_path, {"a": "one.safetensors", "../../b": "one.safetensors", "c": "two.safetensors"})
    return tmp_path


def place(folder: Path, weight_map: object) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_all_shards_are_read(shards: Path):
    files = TensorFiles(model_files(shards))
    assert [file.name for file in files.files] == ["one.safetensors", "two.safetensors"]
    assert {name: files.read(name).tolist() for name in files.stored} == {
        "a": [1, 1],
        "../../b": [2, 2, 2],
        "c": [0],
    }


def test_a_float32_copy_can_be_written_to(shards: Path):
    files = TensorFiles(model_files(shards))
    files.float32("a").zero_()
    assert files.read("a").tolist() == [1, 1]


def test_a_missing_shard_is_named(shards: Path):
    (shards / "two.safetensors").unlink()
    with pytest.raises(SourceError, match=r"index\.json names the shard two\.safetensors, which is not there"):
        model_files(shards)


def test_a_tensor_that_its_shard_does_not_hold_is_named(shards: Path):
    place(shards, {"a": "two.safetensors", "c": "two.safetensors"})
    with pytest.raises(SourceError, match=r"places the tensor a in two\.safetensors, which does not hold it"):
        model_files(shards)


def test_a_tensor_that_the_index_does_not_know_is_named(shards: Path):
    place(shards, {"a": "one.safetensors", "c": "two.safetensors"})
    with pytest.raises(SourceError, match=r"one\.safetensors holds the tensor \.\./\.\./b"):
        model_files(shards)


@pytest.mark.parametrize("shard", ["../one.safetensors", "/etc/passwd", "sub/one.safetensors", "one.bin", "", None, 3])
def test_an_index_that_leads_out_of_the_folder_is_refused(shards: Path, shard: Any):
    place(shards, {"a": shard})
    with pytest.raises(SourceError, match="not a safetensors file beside it"):
        model_files(shards)


@pytest.mark.parametrize("weight_map", [{}, [], None, "x"])
def test_an_index_without_a_map_is_refused(shards: Path, weight_map: Any):
    place(shards, weight_map)
    with pytest.raises(SourceError, match="has no weight_map"):
        model_files(shards)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "model.gguf"])
def test_other_formats_are_refused_with_the_way_to_convert_them(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"\x80\x02")
    with pytest.raises(SourceError, match=rf"{name}: only safetensors are read.*save_pretrained"):
        model_files(tmp_path)


def test_a_folder_without_tensors_is_refused(tmp_path: Path):
    (tmp_path / "training_args.bin").write_bytes(b"")
    with pytest.raises(SourceError, match=r"holds no model\.safetensors"):
        model_files(tmp_path)


def test_one_name_in_two_files_is_refused(shards: Path):
    save_file({"a": torch.zeros(1)}, shards / "two.safetensors")
    with pytest.raises(SourceError, match="both hold the tensor a"):
        TensorFiles([shards / "one.safetensors", shards / "two.safetensors"])


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 100_000, "\udcff"])
def test_json_that_is_none_is_refused(tmp_path: Path, content: Any):
    file = tmp_path / "config.json"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(SourceError, match=r"config\.json"):
        read_json(file)
