"""Adapters on their way into a server: readable by others, gone when let go, also after a kill."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from evomerge.backends.vllm.adapters import AdapterRoom, zeros
from evomerge.backends.weights.adapter import Adapter
from evomerge.recipe.tree import Source

MODULES = {"model.layers.0.self_attn.q_proj": (6, 4), "model.layers.0.mlp.up_proj": (8, 4)}


def test_an_adapter_of_zeros_is_one_that_anybody_reads(tmp_path: Path) -> None:
    room = AdapterRoom(tmp_path)
    folder = room.write("zero", zeros(MODULES), Source("base"), MODULES)
    adapter = Adapter(folder)
    assert {name: module.shape for name, module in adapter.modules.items()} == MODULES
    for module in MODULES:
        a, b = adapter.factors(module)
        assert not torch.any(b @ a)
    room.remove("zero")
    assert not folder.exists()
    room.close()
    room.close()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_and_what_others_use_is_not(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left = tmp_path / f"evomerge-adapters-{int(gone.stdout)}-{'0' * 16}"
    used = tmp_path / f"evomerge-adapters-{os.getppid()}-{'1' * 16}"
    foreign = tmp_path / "something-else"
    for folder in (left, used, foreign):
        (folder / "inside").mkdir(parents=True)
    room = AdapterRoom(tmp_path)
    room.write("zero", zeros(MODULES), Source("base"), MODULES)
    assert (left.exists(), used.exists(), foreign.exists()) == (False, True, True)
    room.close()


def test_adapters_are_for_their_owner_alone(tmp_path: Path) -> None:
    room = AdapterRoom(tmp_path)
    folder = room.write("zero", zeros(MODULES), Source("base"), MODULES)
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    room.close()
