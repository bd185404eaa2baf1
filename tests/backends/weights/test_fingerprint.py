"""A fingerprint is of contents: the same wherever a folder lies, another as soon as anything that counts changes."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from evomerge.backends.weights.adapter import Adapter
from evomerge.backends.weights.checkpoint import Checkpoint
from evomerge.backends.weights.fingerprint import FileHashes, fingerprint
from tests.backends.weights.family import Copy, Zoo, edit_json, edit_tensors


def test_a_copy_has_the_same_fingerprint_and_a_changed_tensor_another(zoo: Zoo, copied: Copy):
    folder = copied(zoo.base)
    assert fingerprint(Checkpoint(folder)) == fingerprint(Checkpoint(zoo.base))
    edit_tensors(folder, lambda tensors: tensors["model.norm.weight"].add_(1))
    assert fingerprint(Checkpoint(folder)) != fingerprint(Checkpoint(zoo.base))


@pytest.mark.parametrize(
    ("file", "changes", "same"),
    [
        ("config.json", {"_name_or_path": "/elsewhere", "transformers_version": "9"}, True),
        ("config.json", {"rms_norm_eps": 0.5}, False),
        ("generation_config.json", {"eos_token_id": 7}, False),
        ("tokenizer_config.json", {"padding_side": "right"}, False),
    ],
)
def test_only_what_decides_the_answers_counts(zoo: Zoo, copied: Copy, file: Path, changes: dict[str, Any], same: bool):
    folder = copied(zoo.base)
    edit_json(folder / file, **changes)
    assert (fingerprint(Checkpoint(folder)) == fingerprint(Checkpoint(zoo.base))) is same


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"lora_alpha": 9}, False),
        ({"use_rslora": True}, False),
        ({"base_model_name_or_path": "x"}, True),
        ({"lora_dropout": 0.5}, True),
    ],
)
def test_an_adapter_counts_with_its_scale_and_not_with_its_training(
    adapters: list[Path], copied: Copy, changes: dict[str, Any], same: bool
):
    folder = copied(adapters[0])
    edit_json(folder / "adapter_config.json", **changes)
    assert (fingerprint(Adapter(folder)) == fingerprint(Adapter(adapters[0]))) is same


def test_an_unchanged_file_is_not_read_again_and_a_changed_one_is(tmp_path: Path):
    file, store = tmp_path / "a", tmp_path / "cache" / "hashes.json"
    file.write_bytes(b"one")
    first = FileHashes(store).of([file])
    known = json.loads(store.read_text())
    known[str(file)][3] = "remembered"
    store.write_text(json.dumps(known))
    assert FileHashes(store).of([file]) == ["remembered"]
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert FileHashes(store).of([file]) not in (["remembered"], first)
    assert [entry.name for entry in store.parent.iterdir()] == ["hashes.json"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"%s": 3}', b'{"%s": [1, 2, 3]}', b"[" * 100_000])
def test_a_broken_cache_is_ignored(tmp_path: Path, content: bytes):
    file, store = tmp_path / "a", tmp_path / "hashes.json"
    file.write_bytes(b"one")
    right = FileHashes(tmp_path / "other.json").of([file])
    store.write_bytes(content.replace(b"%s", str(file).encode()))
    assert FileHashes(store).of([file]) == right


def test_a_cache_that_cannot_be_written_is_ignored(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "file").write_bytes(b"")
    assert FileHashes(tmp_path / "file" / "hashes.json").of([tmp_path / "a"])


def test_the_cache_is_in_the_users_cache_folder(zoo: Zoo, own_cache: Path):
    fingerprint(Checkpoint(zoo.base))
    assert str(zoo.base / "model.safetensors") in json.loads((own_cache / "file-hashes.json").read_text())
