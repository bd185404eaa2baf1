"""Kernels for GPUs are tested on a GPU where there is one, and in Triton's interpreter everywhere.

Whether kernels are interpreted is decided once a process, when Triton is imported. So the tests of this folder are
collected where kernels can run, and `test_interpreter.py` runs them all in a process where they are interpreted.
"""

import importlib.util
import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
TRITON = importlib.util.find_spec("triton") is not None

collect_ignore: list[str] = []
if not TRITON:
    collect_ignore += ["test_compiling.py", "test_interpreter.py"]
if INTERPRETED:
    collect_ignore += ["test_compiling.py", "test_interpreter.py"]
if not TRITON or not (INTERPRETED or torch.cuda.is_available()):
    collect_ignore += ["test_merging.py", "test_histograms.py"]


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cpu" if INTERPRETED else "cuda")
