"""Every kernel for GPUs computes what its method's formula says, and the same bits as the kernel for processors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle

import pytest
import torch
from torch import Tensor

from evomerge.backends.weights.gpu import merging
from evomerge.backends.weights.gpu.merging import merge_on_device, summary_on_device
from evomerge.backends.weights.gpu.methods import job_of
from evomerge.backends.weights.gpu.work import DeviceMerge, DeviceWork
from evomerge.backends.weights.merging import TensorMerge
from evomerge.backends.weights.raw import Raw
from evomerge.backends.weights.statistics import Statistics
from evomerge.recipe.holes import Scalar
from evomerge.strategies.merge.masks import drop_, expert_key
from evomerge.strategies.merge.protocol import Method, Parameters, TensorContext, Whole
from evomerge.strategies.merge.registry import get, methods

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
MIXED = (FP16, FP32, BF16)
NAMES = (
    "breadcrumbs", "breadcrumbs_ties", "consensus", "dare_linear", "dare_ties", "emr", "linear", "magmax",
    "model_stock", "nearswap", "nuslerp", "ram", "slerp", "task_arithmetic", "ties",
)  # fmt: skip
FUNCTIONS = ("mean", "sum", "max")

OVERFLOWING = pytest.mark.filterwarnings("ignore::RuntimeWarning")
"""The interpreter computes with numpy, which warns of what is meant to happen."""

Values = Mapping[str, Scalar]


def given(method: Method, count: int, values: Values) -> Parameters:
    """Return parameters that differ from model to model."""

    def of(owner: str) -> dict[str, Scalar]:
        return {p.name: values.get(p.name, p.default) for p in method.parameters if p.of == owner}

    inputs = [of("input") for _ in range(count)]
    for index, own in enumerate(inputs):
        for name in own.keys() & {"weight", "density"}:
            own[name] = float(own[name]) * max(1 - 0.1 * index, 0.3)
    return Parameters(of("merge"), tuple(inputs))


def tensors(shape: tuple[int, ...], dtypes: Sequence[torch.dtype], count: int) -> list[Tensor]:
    """Return a base and some models near it."""
    generator = torch.Generator().manual_seed(math.prod(shape) + count)
    base = torch.randn(shape, generator=generator) * 0.02
    models = [base + torch.randn(shape, generator=generator) * 0.002 for _ in range(count)]
    return [tensor.to(dtype) for tensor, dtype in zip((base, *models), cycle(dtypes), strict=False)]


def context(count: int, name: str = "layers.0.mlp.weight") -> TensorContext:
    return TensorContext(name, 0.5, 2, 3, tuple(f"expert-{index}" for index in range(count)))


def merge_of(
    method: Method,
    ctx: TensorContext,
    params: Parameters,
    base: Tensor | None,
    inputs: Sequence[Tensor],
    *,
    out: Tensor,
) -> DeviceMerge:
    return DeviceMerge(method, ctx, params, base, tuple(inputs), out, ("base", *ctx.fingerprints))


def by_processor(merge: DeviceMerge) -> Tensor:
    """Return what the kernel for processors writes."""
    base = None if merge.base is None else Raw.of(merge.base)
    inputs = tuple(Raw.of(tensor) for tensor in merge.inputs)
    out = torch.empty(merge.out.shape, dtype=merge.out.dtype)
    TensorMerge(merge.method, merge.ctx, merge.params, base, inputs, merge.identity, Statistics()).into(Raw.of(out))
    return out


def by_formula(merge: DeviceMerge) -> Tensor:
    base = None if merge.base is None else merge.base.float()
    return merge.method.apply(merge.ctx, base, [tensor.float() for tensor in merge.inputs], merge.params)


def numbers_in_order(tensor: Tensor) -> Tensor:
    """Return integers that differ by one where floats differ by one unit in the last place."""
    bits = tensor.contiguous().view(torch.int32 if tensor.dtype == FP32 else torch.int16).long()
    return torch.where(bits < 0, -(bits & (0x7FFFFFFF if tensor.dtype == FP32 else 0x7FFF)), bits)


def check(
    name: str,
    device: torch.device,
    *,
    shape: tuple[int, ...] = (17, 65),
    dtypes: Sequence[torch.dtype] = (BF16,),
    out: torch.dtype = BF16,
    count: int | None = None,
    values: Values | None = None,
    based: bool = True,
    made: Sequence[Tensor] | None = None,
) -> None:
    """Check a method's kernel against its formula, and against the kernel for processors."""
    method = get(name)
    least, most = method.needs.inputs
    count = max(least, min(3, most or 3)) if count is None else count
    base, *inputs = (tensor.to(device) for tensor in made or tensors(shape, dtypes, count))
    ctx, params = context(len(inputs)), given(method, len(inputs), values or {})
    origin = base if based and method.needs.base in {"required", "optional"} else None
    floats = [tensor.float() for tensor in inputs]
    for stage in method.stages(params) if method.stages else ():
        ctx = replace(ctx, whole=(*ctx.whole, Whole(stage(ctx, base.float(), floats))))
    merge = merge_of(method, ctx, params, origin, inputs, out=torch.empty_like(base, dtype=out))
    assert job_of(DeviceWork(merge, Statistics())) is not None
    assert merge_on_device([merge], Statistics())
    unit = {FP32: 1e-6, FP16: 2**-10, BF16: 2**-7}[out]
    torch.testing.assert_close(merge.out.float(), by_formula(merge), rtol=unit, atol=1e-7)
    apart = numbers_in_order(merge.out.cpu()) - numbers_in_order(by_processor(merge))
    assert int(apart.abs().max()) <= 1


@pytest.mark.parametrize(("dtypes", "out"), [((BF16,), BF16), (MIXED, FP32), ((FP16,), FP16)])
@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_is_its_formula(
    name: str, dtypes: tuple[torch.dtype, ...], out: torch.dtype, device: torch.device
) -> None:
    check(name, device, dtypes=dtypes, out=out)


@pytest.mark.parametrize("shape", [(1,), (7,), (2048,), (3, 5, 7), (5, 1024)])
@pytest.mark.parametrize("name", ["dare_ties", "linear", "task_arithmetic", "ties"])
def test_shapes_of_whole_blocks_and_of_parts_are_merged(
    name: str, shape: tuple[int, ...], device: torch.device
) -> None:
    check(name, device, shape=shape)


@pytest.mark.parametrize("count", [1, 2, 8, 13])
@pytest.mark.parametrize("name", ["linear", "ties"])
def test_any_number_of_models_is_merged(name: str, count: int, device: torch.device) -> None:
    check(name, device, shape=(21, 31), count=count)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *(("ties", {"merge_func": func, "scope": scope}) for func in FUNCTIONS for scope in ("tensor", "model")),
        *(("dare_ties", {"merge_func": func, "rescale": how}) for func in FUNCTIONS for how in ("unbiased", "l1")),
        ("dare_linear", {"rescale": "l1", "normalize": True}),
        ("dare_linear", {"density": 1.0, "scale": 0.3}),
        ("breadcrumbs", {"gamma": 0.0, "density": 0.6}),
        ("breadcrumbs", {"gamma": 0.04, "density": 0.3}),
        ("breadcrumbs_ties", {"gamma": 0.5, "density": 0.9}),
        ("ties", {"density": 0.0}),
        ("ties", {"density": 1.0}),
        ("task_arithmetic", {"normalize": True}),
        ("nuslerp", {"flatten": False, "row_wise": True}),
        ("nuslerp", {"flatten": False, "row_wise": False}),
        ("model_stock", {"filter_wise": True}),
        *(("consensus", {"least_models": least}) for least in (0, 1)),
        ("ram", {"epsilon": 2e-3}),
    ],
)  # fmt: skip
def test_a_kernel_knows_every_choice(name: str, values: Values, device: torch.device) -> None:
    check(name, device, values=values)


def test_sums_without_a_base_are_merged_where_it_is_optional(device: torch.device) -> None:
    for name in (name for name, method in methods().items() if method.needs.base == "optional"):
        method = get(name)
        merge = merge_of(
            method,
            context(2),
            given(method, 2, {}),
            None,
            inputs := [tensor.to(device) for tensor in tensors((9, 40), (BF16,), 2)[1:]],
            out=torch.empty_like(inputs[0]),
        )
        assert merge_on_device([merge], Statistics())
        torch.testing.assert_close(merge.out.float(), by_formula(merge), rtol=2**-7, atol=1e-7)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["ties", "breadcrumbs"])
def test_of_equal_entries_those_of_lowest_index_are_kept(name: str, density: float, device: torch.device) -> None:
    steps = torch.arange(70_000) * 7919 % 5  # two chunks of a histogram
    inputs = [((steps + shift) % 5 - 2).to(BF16) for shift in range(2)]
    made = [torch.zeros(70_000, dtype=BF16), *inputs]
    check(name, device, values={"density": density, "gamma": 0.2}, made=made)


@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_a_trim_keeps_exactly_the_number_asked_for(scope: str, device: torch.device) -> None:
    sizes, density = (700, 1300, 1), 0.35
    parts = [torch.full((size,), 0.5, dtype=BF16, device=device) for size in sizes]
    merges: list[DeviceMerge] = []
    params = given(get("ties"), 1, {"density": density, "scope": scope})
    statistics = Statistics()
    for number, part in enumerate(parts):
        base, out = torch.zeros_like(part), torch.empty_like(part)
        merges.append(merge_of(get("ties"), context(1, f"layers.{number}.w"), params, base, [part], out=out))
    stages = get("ties").stages
    for stage in stages(params) if stages else ():
        found = [summary_on_device(stage, merge, statistics) for merge in merges]
        total = found[0] + found[1] + found[2]
        before = [None, found[0], found[0] + found[1]]
        wholes = [Whole(total, lambda early=early: early) for early in before]
        merges = [
            replace(merge, ctx=replace(merge.ctx, whole=(whole,))) for merge, whole in zip(merges, wholes, strict=True)
        ]
    assert merge_on_device(merges, statistics)
    kept = [int((merge.out != 0).sum()) for merge in merges]
    asked = [int(700 * density), int(1300 * density), 1] if scope == "tensor" else [int(2001 * density), 0, 0]
    assert kept == asked
    assert all(bool((merge.out[:count] != 0).all()) for merge, count in zip(merges, kept, strict=True))


@pytest.mark.parametrize("density", [0.001, 0.3, 0.7])
def test_masks_are_those_of_every_other_device(density: float, device: torch.device) -> None:
    size, method, ctx = 5001, get("dare_linear"), context(1)
    params = Parameters(given(method, 1, {}).merge, ({"weight": 1.0, "density": density},))
    model = torch.ones(size, device=device)
    merge = merge_of(method, ctx, params, torch.zeros_like(model), [model], out=torch.empty_like(model))
    assert merge_on_device([merge], Statistics())
    kept = drop_(torch.ones(size), expert_key(ctx.seed, ctx.name, ctx.fingerprints[0]), density)
    assert torch.equal(merge.out.cpu() != 0, kept != 0)


def test_opposite_values_cancel_and_elect_plus(device: torch.device) -> None:
    weights = torch.rand(512, generator=torch.Generator().manual_seed(1)).to(device)
    base = torch.zeros_like(weights)
    method = get("ties")
    inputs = ({"weight": 0.3, "density": 1.0}, {"weight": -0.3, "density": 1.0})
    params = Parameters(given(method, 2, {}).merge, inputs)
    merge = merge_of(method, context(2), params, base, [weights, weights], out=torch.empty_like(base))
    assert merge_on_device([merge], Statistics())
    assert bool((merge.out >= 0).all())
    assert bool((merge.out[weights > 0] > 0).all())


@OVERFLOWING
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["linear", "ties", "breadcrumbs_ties", "dare_ties", "emr", "magmax", "consensus"])
def test_what_is_no_finite_number_is_told(name: str, wrong: float, device: torch.device) -> None:
    method = get(name)
    base, *inputs = (tensor.to(device) for tensor in tensors((40, 30), (FP32,), 3))
    origin = None if method.needs.base == "unused" else base
    merge = merge_of(method, context(3), given(method, 3, {}), origin, inputs, out=torch.empty_like(base))
    assert merge_on_device([merge], Statistics())
    inputs[1][3, 3] = wrong
    if name in {"dare_ties"}:
        inputs[1][:] = wrong
    assert not merge_on_device([merge], Statistics())


@OVERFLOWING
@pytest.mark.parametrize("dtype", [BF16, FP16])
def test_results_are_rounded_to_nearest_even_as_torch_does(dtype: torch.dtype, device: torch.device) -> None:
    bits = torch.randint(-(2**31), 2**31, (4000,), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    halves = (bits & ~0xFFFF) | 0x8000  # between two numbers of bfloat16
    edges = torch.tensor([0.0, -0.0, math.inf, -math.inf, 65504.0, 65519.99, 65520.0, 3.4e38, 2**-24, 2**-25, 2.0**-26])
    steps = torch.arange(1, 4000, 2) * 2.0**-12 + 2.0  # between two numbers of float16
    model = torch.cat([bits.view(FP32), halves.view(FP32), edges, steps, -steps]).to(device)
    model = model[~model.isnan()]
    out = torch.empty(model.shape, dtype=dtype, device=device)
    merge_on_device(
        [merge_of(get("linear"), context(1), given(get("linear"), 1, {}), None, [model], out=out)], Statistics()
    )
    assert torch.equal(out.view(torch.int16), model.to(dtype).view(torch.int16))


@OVERFLOWING
def test_what_is_too_large_for_the_output_is_told(device: torch.device) -> None:
    model = torch.full((10,), 1e5, device=device)
    method = get("linear")
    for dtype, finite in ((FP16, False), (BF16, True)):
        out = torch.empty(10, dtype=dtype, device=device)
        merge = merge_of(method, context(1), given(method, 1, {}), None, [model], out=out)
        assert merge_on_device([merge], Statistics()) is finite


def test_tensors_at_odd_addresses_are_merged(device: torch.device) -> None:
    base, *inputs = (torch.cat([tensor, tensor]).to(device)[3:-4] for tensor in tensors((2050,), (BF16,), 2))
    check("ties", device, made=[base, *inputs])
    merge = merge_of(get("ties"), context(2), given(get("ties"), 2, {}), base, inputs, out=torch.empty_like(base))
    job = job_of(DeviceWork(merge, Statistics()))
    assert job is not None
    assert not job.variant.aligned


def test_many_tensors_of_several_kinds_are_merged_together(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "_ELEMENTS", 3000)  # several launches
    merges: list[DeviceMerge] = []
    for number, (shape, dtype) in enumerate([((5, 300), BF16), ((7,), FP32), ((0, 4), BF16), ((40, 51), BF16)] * 2):
        base, *inputs = (tensor.to(device) for tensor in tensors(shape, (dtype,), 2))
        method = get(("ties", "task_arithmetic", "widen")[number % 3])
        params = given(method, 2, {"density": 0.1 * (number + 1)})
        merges.append(
            merge_of(method, context(2, f"layers.{number}"), params, base, inputs, out=torch.empty_like(base))
        )
    assert merge_on_device(iter(merges), Statistics())
    for merge in (merge for merge in merges if merge.out.numel()):
        torch.testing.assert_close(merge.out.float(), by_formula(merge), rtol=2**-7, atol=1e-7)


def test_a_method_without_a_kernel_works_through_its_formula(device: torch.device) -> None:
    method = get("della")
    base, *inputs = (tensor.to(device) for tensor in tensors((20, 30), (BF16,), 2))
    merge = merge_of(method, context(2), given(method, 2, {}), base, inputs, out=torch.empty_like(base))
    assert job_of(DeviceWork(merge, Statistics())) is None
    assert merge_on_device([merge], Statistics())
    assert torch.equal(merge.out, by_formula(merge).to(BF16))
    inputs[0][0] = math.nan
    assert not merge_on_device([merge], Statistics())


def test_nothing_is_counted_twice_in_a_study(device: torch.device) -> None:
    statistics, method = Statistics(), get("ties")
    base, *inputs = (tensor.to(device) for tensor in tensors((20, 30), (BF16,), 2))
    for density in (0.2, 0.5, 0.8):
        params = given(method, 2, {"density": density})
        assert merge_on_device(
            [merge_of(method, context(2), params, base, inputs, out=torch.empty_like(base))], statistics
        )
    assert statistics.computed["histogram on the device"] == 2
    assert statistics.computed["pieces"] == 1


def test_no_tensors_are_finite() -> None:
    assert merge_on_device([], Statistics())
