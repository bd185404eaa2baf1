"""The benchmark of merging on a GPU measures what it says, and says when there is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.merge.gpu import SHAPES

REPOSITORY = Path(__file__).parents[2]


def run(*words: str, interpret: bool) -> str:
    environment = {**os.environ, "TRITON_INTERPRET": "1" if interpret else "0"}
    command = [sys.executable, "-m", "benchmarks.merge.gpu", *words]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_size_that_is_named_1b_is_that_of_a_billion_parameters() -> None:
    assert 1e9 < SHAPES["1b"].parameters < 1.2e9


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which takes its place")
def test_without_a_gpu_it_says_so() -> None:
    assert "Not measured: torch finds no GPU here." in run("--size", "1b", interpret=False)


def test_every_method_is_measured_beside_a_copy() -> None:
    pytest.importorskip("triton", reason="there are builds of Triton for Linux alone")
    shown = run("--size", "tiny", "--experts", "2", "--repeats", "1", interpret=True)
    rows = [line.split("|")[1].strip() for line in shown.splitlines() if line.startswith("|")]
    assert rows == ["method", "---", "copy", "linear", "ties"]
