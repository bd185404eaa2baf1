"""The kernels compile for a GPU, wherever they are compiled, to what they promise."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from evomerge.backends.weights.gpu import work
from evomerge.backends.weights.gpu.deltas import merge_deltas
from evomerge.backends.weights.gpu.ends import find_ends
from evomerge.backends.weights.gpu.masses import add_masses, set_factors
from evomerge.backends.weights.gpu.merging import merge_on_device
from evomerge.backends.weights.gpu.sums import merge_sum
from evomerge.backends.weights.gpu.work import DeviceMerge
from evomerge.backends.weights.statistics import Statistics
from evomerge.recipe.holes import Scalar
from evomerge.strategies.merge.protocol import Parameters, TensorContext
from evomerge.strategies.merge.registry import get

TARGET = GPUTarget("cuda", 90, 32)
SUM = {"words": "*i64", "numbers": "*fp32", "pieces": "*i32", "bad": "*i64"}
DELTAS = {"words": "*i64", "numbers": "*fp32", "pieces": "*i32", "bounds": "*fp32", "cuts": "*i64", "bad": "*i64"}
ENDS = {"ends": "*i64", "bounds": "*fp32", "cuts": "*i64"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compiled(kernel: Any, pointers: dict[str, str], **constants: Any) -> str:
    """Return a kernel's code for a GPU, as launches ask for it."""
    source = ASTSource(
        kernel,
        signature={**pointers, **dict.fromkeys(constants, "constexpr")},
        constexprs=constants,
        attrs={(place,): [["tt.divisibility", 16]] for place in range(len(pointers))},
    )
    return triton.compile(source, target=TARGET, options={"num_warps": 4, "enable_fp_fusion": False}).asm["ptx"]


def told(models: int, *, words: int, kind: int = 0, block: int = 512) -> dict[str, Any]:
    kinds = (kind,) * (models + 2)
    return {"WORDS": words, "N": models, "KINDS": kinds, "ALIGNED": True, "MASKED": False, "BLOCK": block}


def in_vectors(code: str) -> int:
    return len(re.findall(r"ld\.global\.v[24]\.b32", code))


@pytest.mark.parametrize("models", [1, 8])
def test_a_sum_reads_each_model_once_in_large_words(models: int) -> None:
    code = compiled(merge_sum, SUM, **told(models, words=6 + models, block=1024), BASED=False, ALONG="tensor")
    assert in_vectors(code) == models
    assert len(re.findall(r"ld\.global\.b16", code)) == 0
    assert len(re.findall(r"st\.global\.v4\.b32", code)) == 1


@pytest.mark.parametrize("how", ["all", "low", "band", "drop"])
@pytest.mark.parametrize("rule", ["sum", "agreeing mean", "agreeing sum", "agreeing max"])
def test_a_vote_reads_each_model_once_and_rounds_every_product(how: str, rule: str) -> None:
    words = 3 + 3 + (6 if how == "drop" else 0)
    code = compiled(merge_deltas, DELTAS, **told(3, words=words, block=1024), HOW=how, RULE=rule)
    assert in_vectors(code) == 4
    assert "fma.rn.f32" not in code


@pytest.mark.parametrize("rule", ["clip", "farthest", "shared", "changed"])
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_other_rules_compile_for_every_dtype(rule: str, kind: int) -> None:
    models = 1 if rule == "clip" else 2
    code = compiled(
        merge_deltas, DELTAS, **{**told(models, words=3 + models, kind=kind), "MASKED": True}, HOW="all", RULE=rule
    )
    assert "fma.rn.f32" not in code


@pytest.mark.parametrize("along", ["tensor", "row", "column"])
@pytest.mark.parametrize("based", [False, True])
def test_sums_compile_for_every_kind_of_weights(along: str, *, based: bool) -> None:
    code = compiled(merge_sum, SUM, **{**told(2, words=8), "MASKED": True}, BASED=based, ALONG=along)
    assert "fma.rn.f32" not in code


def test_what_prepares_a_merge_compiles() -> None:
    assert compiled(find_ends, ENDS, CHUNK=1 << 16, BLOCK=4096)
    masses = {"words": "*i64", "pieces": "*i32", "masses": "*fp64"}
    constants = told(2, words=9)
    del constants["MASKED"]
    assert compiled(add_masses, masses, **constants)
    assert compiled(set_factors, {"masses": "*fp64", "firsts": "*i64", "numbers": "*fp32"}, N=2, BLOCK=256)


class _Driver:
    """Stands in for that of a GPU: kernels are compiled for it, and cannot be launched."""

    def get_current_target(self) -> GPUTarget:
        return TARGET

    def get_current_device(self) -> int:
        return -1  # what is compiled for it is kept apart from what real devices run

    def get_current_stream(self, _device: int) -> int:
        return 0


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of kernels that would have been launched, and are compiled instead."""
    names: list[str] = []

    def compile_alone(kernel: Any, grid: tuple[int, ...]) -> Callable[..., None]:
        def call(*arguments: Any, **options: Any) -> None:
            kernel.run(*arguments, grid=grid, warmup=True, **options)
            names.append(kernel.__name__)

        return call

    monkeypatch.setattr(JITFunction, "__getitem__", compile_alone)
    monkeypatch.setattr(work, "runs_on", lambda _device: True)
    monkeypatch.setattr(driver, "_active", _Driver())
    return names


@pytest.mark.parametrize(
    ("name", "values", "kernels"),
    [
        ("linear", {}, {"merge_sum"}),
        ("task_arithmetic", {}, {"merge_sum"}),
        ("nuslerp", {"flatten": False}, {"merge_sum"}),
        ("ties", {"density": 0.5}, {"find_ends", "merge_deltas"}),
        ("dare_ties", {"density": 0.5, "rescale": "l1"}, {"add_masses", "set_factors", "merge_deltas"}),
    ],
)
def test_what_a_merge_launches_compiles(
    name: str, values: dict[str, Scalar], kernels: set[str], launched: list[str]
) -> None:
    method = get(name)
    merge = {p.name: values.get(p.name, p.default) for p in method.parameters if p.of == "merge"}
    own = {p.name: values.get(p.name, p.default) for p in method.parameters if p.of == "input"}
    base, *inputs = torch.randn(3, 33, 64).bfloat16()
    ctx = TensorContext("layers.0.w", 0.5, 1, 0, ("first", "second"))
    params = Parameters(merge, (own, own))
    merged = DeviceMerge(method, ctx, params, base, tuple(inputs), torch.empty_like(base), ("base", *ctx.fingerprints))
    merge_on_device([merged], Statistics())
    assert set(launched) == kernels
