"""Every kernel computes what its method's formula says, for each dtype, shape and choice, whatever is tied."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle

import pytest
import torch
from torch import Tensor

from evomerge.backends.weights.kernels import work
from evomerge.backends.weights.kernels.methods import kernel_of
from evomerge.backends.weights.merging import TensorMerge
from evomerge.backends.weights.raw import Raw
from evomerge.backends.weights.statistics import Statistics
from evomerge.recipe.holes import Scalar
from evomerge.strategies.merge.protocol import Method, Parameters, TensorContext, Whole
from evomerge.strategies.merge.registry import get, methods

SHAPES = ((1,), (7,), (33, 65), (3, 5, 7), (300, 301))
BFLOAT16 = (torch.bfloat16,)
MIXED = (torch.float16, torch.float32, torch.bfloat16)
FUNCTIONS = ("mean", "sum", "max")
NAMES = tuple(name for name, method in methods().items() if kernel_of(method))

Values = Mapping[str, Scalar]


def given(method: Method, count: int, values: Values) -> Parameters:
    def of(owner: str) -> dict[str, Scalar]:
        return {p.name: values.get(p.name, p.default) for p in method.parameters if p.of == owner}

    each = of("input")
    inputs = [dict(each) for _ in range(count)]
    for index, own in enumerate(inputs):  # no two models are treated alike
        for name in own.keys() & {"weight", "density"}:
            own[name] = float(own[name]) * max(1 - 0.1 * index, 0.3)
    return Parameters(of("merge"), tuple(inputs))


def tensors(shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...], count: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(len(shape) + count)
    base = torch.randn(shape, generator=generator) * 0.02
    experts = [base + torch.randn(shape, generator=generator) * 0.002 for _ in range(count)]
    return tuple(tensor.to(dtype) for tensor, dtype in zip((base, *experts), cycle(dtypes), strict=False))


def merge_of(
    method: Method,
    context: TensorContext,
    params: Parameters,
    base: Tensor | None,
    inputs: Sequence[Tensor],
    *,
    statistics: Statistics | None = None,
) -> TensorMerge:
    origin = None if base is None else Raw.of(base)
    identity = ("base", *context.fingerprints)
    raw = tuple(map(Raw.of, inputs))
    return TensorMerge(method, context, params, origin, raw, identity, statistics or Statistics())


def check(
    method: Method,
    values: Values,
    base: Tensor | None,
    inputs: tuple[Tensor, ...],
    dtype: torch.dtype = torch.float32,
) -> None:
    context = TensorContext("layers.0.mlp.weight", 0.5, 2, 3, tuple(f"expert-{i}" for i in range(len(inputs))))
    params = given(method, len(inputs), values)
    floats = [tensor.float() for tensor in inputs]
    origin = None if base is None else base.float()
    for stage in method.stages(params) if method.stages else ():
        context = replace(context, whole=(*context.whole, Whole(stage(context, origin, floats))))
    expected = method.apply(context, origin, floats, params)
    out = torch.empty(expected.shape, dtype=dtype)
    assert merge_of(method, context, params, base, inputs).into(Raw.of(out))
    unit = {torch.float32: 1e-6, torch.bfloat16: 2**-7}[dtype]
    torch.testing.assert_close(out.float(), expected, rtol=unit, atol=1e-7)


def models(method: Method) -> int:
    least, most = method.needs.inputs
    return max(least, min(3, most or 3))


@pytest.mark.parametrize(("dtypes", "out"), [(BFLOAT16, torch.bfloat16), (MIXED, torch.float32)])
@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_is_its_formula(
    name: str, dtypes: tuple[torch.dtype, ...], out: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "UNIT", 1 << 12)  # several pieces
    method = get(name)
    for shape in SHAPES:
        base, *inputs = tensors(shape, dtypes, models(method))
        check(method, {}, base if method.needs.base in ("required", "optional") else None, tuple(inputs), out)
        if method.needs.base == "optional":
            check(method, {}, None, tuple(inputs), out)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *(("ties", {"merge_func": func, "scope": scope}) for func in FUNCTIONS for scope in ("tensor", "model")),
        *(("dare_ties", {"merge_func": func, "rescale": how}) for func in FUNCTIONS for how in ("unbiased", "l1")),
        ("dare_linear", {"rescale": "l1", "normalize": True}),
        ("breadcrumbs", {"gamma": 0.0, "density": 0.6}),
        ("breadcrumbs", {"gamma": 0.04, "density": 0.3}),
        ("breadcrumbs_ties", {"gamma": 0.5, "density": 0.9}),
        ("ties", {"density": 0.0}),
        ("ties", {"density": 1.0}),
        ("task_arithmetic", {"normalize": True}),
        ("nuslerp", {"flatten": False, "row_wise": True}),
        ("nuslerp", {"flatten": False, "row_wise": False}),
        ("model_stock", {"filter_wise": True}),
        *((name, {"rescale": "l1", "density": 0.6}) for name in ("della", "della_linear")),
        ("pcb", {"scope": "tensor", "density": 0.4}),
        ("pcb", {"density": 1.0}),
        ("sce", {"select_topk": 0.3}),
        ("sce", {"select_topk": 0.0}),
        *(("consensus", {"least_models": least}) for least in (0, 1)),
        *((name, {"epsilon": 2e-3}) for name in ("ram", "ram_plus")),
    ],
)  # fmt: skip
def test_a_kernel_knows_every_choice(name: str, values: Values) -> None:
    method = get(name)
    for shape in SHAPES:
        base, *inputs = tensors(shape, BFLOAT16, models(method))
        check(method, values, base, tuple(inputs))


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["ties", "breadcrumbs", "sce"])
def test_of_equal_entries_a_kernel_keeps_those_of_the_formula(name: str, density: float) -> None:
    method = get(name)
    base = torch.zeros(90_000, dtype=torch.bfloat16)  # three chunks of a histogram
    steps = torch.arange(90_000) * 7919 % 5
    inputs = tuple(((steps + shift) % 5 - 2).to(torch.bfloat16) for shift in range(3))
    check(method, {"density": density, "gamma": 0.2, "select_topk": density}, base, inputs)


@pytest.mark.parametrize("columns", [90_000, 300])
def test_equal_entries_have_the_ranks_of_the_formula(columns: int) -> None:
    base = torch.zeros(90_000 // columns, columns, dtype=torch.bfloat16)
    steps = torch.arange(90_000).view(base.shape) * 7919 % 5
    inputs = tuple(((steps + shift) % 5 - 2).to(torch.bfloat16) for shift in range(3))
    check(get("della"), {"density": 0.5, "epsilon": 0.3}, base, inputs)


@pytest.mark.parametrize("name", ["sce", "ram_plus", "magmax", "emr", "pcb"])
def test_equal_and_opposite_models_are_merged_as_the_formula_says(name: str) -> None:
    base, expert, _ = tensors((33, 65), BFLOAT16, 2)
    check(get(name), {}, base, (expert, expert))
    check(get(name), {}, base, (2 * base - expert, expert))
    check(get(name), {}, base, (expert,))


def test_a_trim_of_the_whole_model_keeps_the_formulas_entries_of_each_tensor() -> None:
    method = get("ties")
    parts = [tensors(shape, BFLOAT16, 2) for shape in SHAPES]
    params = given(method, 2, {"density": 0.3, "scope": "model"})
    assert method.stages is not None
    (stage,) = method.stages(params)
    names = [f"layers.{index}.weight" for index in range(len(parts))]
    contexts = [TensorContext(name, 0.5, 5, 3, ("a", "b")) for name in names]
    found = [
        stage(ctx, base.float(), [tensor.float() for tensor in inputs])
        for ctx, (base, *inputs) in zip(contexts, parts, strict=True)
    ]
    total = found[0]
    for summary in found[1:]:
        total = total + summary
    before = None
    for ctx, (base, *inputs), own in zip(contexts, parts, found, strict=True):
        context = replace(ctx, whole=(Whole(total, partial(lambda summary: summary, before)),))
        expected = method.apply(context, base.float(), [tensor.float() for tensor in inputs], params)
        out = torch.empty(expected.shape)
        merge_of(method, context, params, base, inputs).into(Raw.of(out))
        torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-9)
        before = own if before is None else before + own


@pytest.mark.parametrize("count", [1, 2, 20])
@pytest.mark.parametrize("name", ["linear", "ties", "dare_ties", "della", "sce", "pcb"])
def test_any_number_of_models_is_merged(name: str, count: int) -> None:
    method = get(name)
    base, *inputs = tensors((40, 50), BFLOAT16, count)
    values: Values = {"density": 1.0 if name == "ties" else 0.5, "merge_func": "sum", "epsilon": 0.05}
    check(method, values, base if method.needs.base == "required" else None, tuple(inputs))


@pytest.mark.parametrize(
    "name", ["ties", "dare_ties", "dare_linear", "karcher", "breadcrumbs", "sce", "pcb", "della", "ram_plus"]
)
def test_the_number_of_threads_changes_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "UNIT", 1 << 12)
    method = get(name)
    base, *inputs = tensors((300, 301), BFLOAT16, 2)
    context = TensorContext("layers.0.weight", 0.5, 2, 3, ("a", "b"))
    params = given(method, 2, {"rescale": "l1", "scope": "tensor"})
    used = base if method.needs.base == "required" else None
    results: list[Tensor] = []
    for threads in (1, 3):
        merge = merge_of(method, context, params, used, inputs, statistics=Statistics(threads=threads))
        results.append(torch.empty(300, 301))
        assert merge.into(Raw.of(results[-1]))
    assert torch.equal(*results)


def test_what_overflows_is_told() -> None:
    method = get("linear")
    inputs = (torch.full((5,), 3e38), torch.full((5,), 3e38))
    context = TensorContext("w", 0.5, 1, 0, ("a", "b"))
    params = given(method, 2, {"normalize": False})
    merge = merge_of(method, context, params, None, inputs)
    assert not merge.into(Raw.empty("F32", (5,)))
    assert not merge.into(Raw.empty("BF16", (5,)))
    small = merge_of(method, context, params, None, (torch.full((5,), 6e4), torch.full((5,), 1e3)))
    assert small.into(Raw.empty("BF16", (5,)))
    large = merge_of(method, context, params, None, (torch.full((5,), 6e4), torch.full((5,), 1e4)))
    assert not large.into(Raw.empty("F16", (5,)))
