"""Broken models, end to end: one sentence with the file and the fix, and nothing is written or spent."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.refusals import Refused


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit_json(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def cut_off(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def garbage_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 40) + b"\x93garbage" * 30)


def no_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"PK\x03")


def empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def another_tensor(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({"model.extra.weight": torch.zeros(2, dtype=torch.bfloat16)}))


def without_a_tensor(folder: Path) -> None:
    def remove(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.norm.weight"]

    edit_tensors(folder, remove)


def another_tokenizer(folder: Path) -> None:
    def swap(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]

    edit_json(folder / "tokenizer.json", swap)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut_off, "model.safetensors was cut off: 1000 bytes of its tensors are missing; copy or download"),
        (garbage_header, "model.safetensors: its header is not readable, so it is no safetensors file"),
        (no_header, "model.safetensors is not a safetensors file, or was cut off in its header"),
        (empty, "model.safetensors is not a safetensors file, or was cut off in its header"),
        (a_pickle, "pytorch_model.bin: only safetensors are read"),
        (without_config, "holds neither config.json nor adapter_config.json; give a folder written by save_pretrained"),
        (broken_config, "config.json is not readable JSON; copy or download it again"),
        (another_tensor, "has the tensor model.extra.weight, which"),
        (without_a_tensor, "has no tensor model.norm.weight, which is in"),
        (another_tokenizer, "tokenizer"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_model_is_refused_with_its_file(
    damage: Callable[[Path], None], says: str, place: Path, refused: Refused
) -> None:
    folder = place / "models" / "two"
    damage(folder)
    for command in ("run", "check"):
        sentence = refused(command, "job.yaml")
        assert str(folder) in sentence
        assert says in sentence
    assert str(folder) in refused("init", "models/one", "models/two", "--data", "items.jsonl", "--out", "new.yaml")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_found_before_anything_is_spent(
    value: float, place: Path, refused: Refused
) -> None:
    folder = place / "models" / "two"

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"][-1, -1] = value

    edit_tensors(folder, spoil)
    (place / "recipe.yaml").write_text("method: linear\nmodels:\n  - {model: models/one}\n  - {model: models/two}\n")
    sentence = (
        f"{folder}/model.safetensors: the tensor model.layers.1.mlp.up_proj.weight holds NaN or infinite values; "
        "copy or download the model again"
    )
    for words in (
        ["run", "job.yaml"],
        ["check", "job.yaml"],
        ["merge", "recipe.yaml", "out"],
        ["eval", "job.yaml", "models/one", "models/two"],
    ):
        assert refused(*words) == sentence
