"""Compiled code is kept for the next process: only the first of an installation pays for compiling."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import torch
from numba.core import event

from evomerge.backends.weights.merging import TensorMerge
from evomerge.backends.weights.raw import Raw
from evomerge.backends.weights.statistics import Statistics
from evomerge.strategies.merge.protocol import Parameters, TensorContext
from evomerge.strategies.merge.registry import get

method = get(sys.argv[1])
params = {of: {p.name: p.default for p in method.parameters if p.of == of} for of in ("merge", "input")}
tensors = [torch.arange(600.0).remainder(7 + index).reshape(20, 30) for index in range(3)]
context = TensorContext("w", 0.5, 1, 0, ("a", "b"))
raws = [Raw.of(tensor) for tensor in tensors]
merge = TensorMerge(
    method, context, Parameters(params["merge"], (params["input"],) * 2), raws[0], tuple(raws[1:]), ("0", "a", "b"),
    Statistics(),
)
with event.install_recorder("numba:compile") as recorded:
    merge.into(Raw.empty("F32", (20, 30)))
print(len(recorded.buffer))
"""


@pytest.mark.parametrize("name", ["ties", "dare_ties", "della", "sce", "magmax", "model_stock"])
def test_a_second_process_compiles_nothing(name: str, tmp_path: Path) -> None:
    def compiled() -> int:
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, name], env=environment, capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert compiled() > 0
    assert compiled() == 0
