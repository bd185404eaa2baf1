"""Free memory of GPUs is told as the driver's own program tells it, and nothing is told where there is none."""

import os
from pathlib import Path

import pytest

from evomerge.backends.vllm import gpus

TOLD = "NVIDIA H200, 142000, 143771\nNVIDIA RTX 6000, Ada, 40960, 49140\n"


def driver(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a program what is found as nvidia-smi."""
    folder.mkdir()
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_names_and_free_memory_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(tmp_path / "bin", f"cat <<END\n{TOLD}END", monkeypatch)
    monkeypatch.setattr(gpus, "DEVICES", (tmp_path,))
    assert gpus.gpus() == (gpus.Gpu("NVIDIA H200", 142000, 143771), gpus.Gpu("NVIDIA RTX 6000, Ada", 40960, 49140))
    assert gpus.where() == (
        "a GPU (NVIDIA H200, 138.7 of 140.4 GiB free; NVIDIA RTX 6000, Ada, 40.0 of 48.0 GiB free)"
    )


@pytest.mark.parametrize("script", ["exit 9", "echo no devices were found", "kill -9 $$"])
def test_a_driver_that_tells_nothing_is_a_gpu_without_numbers(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(tmp_path / "bin", script, monkeypatch)
    monkeypatch.setattr(gpus, "DEVICES", (tmp_path,))
    assert gpus.where() == "a GPU"


def test_without_a_device_it_is_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(tmp_path / "bin", f"cat <<END\n{TOLD}END", monkeypatch)
    monkeypatch.setattr(gpus, "DEVICES", (tmp_path / "none",))
    assert gpus.where() == "the CPU"


def test_without_the_program_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.gpus() == ()
