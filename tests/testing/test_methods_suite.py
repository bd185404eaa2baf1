"""The conformance suite passes for every registered method, and fails on each way to be broken."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from evomerge.strategies.merge.protocol import Coefficients, Method, Needs, Parameter, Parameters, TensorContext
from evomerge.strategies.merge.registry import get, methods
from evomerge.testing.methods import check_method


@pytest.mark.parametrize("name", methods())
def test_registered_method_conforms(name: str) -> None:
    check_method(get(name))


Formula = Callable[[Tensor, Sequence[Tensor]], Tensor]
NUMBER = Parameter("strength", "merge", 0.5, "How much.", low=0.0, high=1.0, minimum=0.0, maximum=1.0)


def build(formula: Formula, parameters: tuple[Parameter, ...] = (), needs: Needs | None = None) -> Method:
    def apply(ctx: TensorContext, base: Tensor | None, inputs: Sequence[Tensor], params: Parameters, /) -> Tensor:
        return formula(inputs[0] if base is None else base, inputs)

    return Method("own", "Own", needs or Needs("required", (1, None)), parameters, "nobody", "R", apply)


def mean(base: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    return base + sum((tensor - base for tensor in inputs), start=torch.zeros_like(base)) / len(inputs)


def unit(tensor: Tensor) -> Tensor:
    return tensor / tensor.norm()


def test_own_method_conforms() -> None:
    check_method(build(mean, (NUMBER,)))


@pytest.mark.parametrize(
    ("formula", "sentence"),
    [
        (lambda base, inputs: mean(base, inputs).double(), "dtype torch.float32 became torch.float64"),
        (lambda base, inputs: mean(base, inputs).flatten(), r"shape \(\) became \(1,\)"),
        (lambda base, inputs: mean(base, inputs).add_(inputs[0].zero_()), "was changed"),
        (lambda _, inputs: inputs[0], "shares its memory"),
        (lambda base, inputs: mean(base, inputs) + torch.rand(()).to(base.dtype), "gave two results"),
        (lambda _, inputs: inputs[0].clone(), "order .* changes the result"),
        (lambda base, inputs: mean(base, inputs) + 1, "do not give the base"),
        (lambda base, inputs: base + unit(mean(base, inputs)) - unit(base), "not finite"),
    ],
    ids=["dtype", "shape", "changes", "shares", "random", "order", "base", "zeros"],
)
def test_broken_formula_is_found(formula: Formula, sentence: str) -> None:
    with pytest.raises(AssertionError, match=rf"own: .*{sentence}"):
        check_method(build(formula))


def test_scope_element_with_a_sum_over_the_tensor_is_found() -> None:
    def centred(base: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        delta = mean(base, inputs) - base
        return base + delta - delta.sum() / max(delta.numel(), 1)

    with pytest.raises(AssertionError, match="a slice merged alone differs"):
        check_method(build(centred))
    check_method(build(centred, needs=Needs("required", (1, None), scope="tensor")))


@pytest.mark.parametrize(
    ("parameter", "sentence"),
    [
        (replace(NUMBER, default=2.0), "the default 2 is above the maximum"),
        (replace(NUMBER, low=-1.0), "the low -1 is below the minimum"),
        (replace(NUMBER, low=1.0), "low is not below high"),
        (replace(NUMBER, log=True), "must lie above zero"),
        (replace(NUMBER, default="much"), "is not a number"),
        (replace(NUMBER, doc=" "), "says nothing"),
        (replace(NUMBER, choices=("a", "b")), "not among the choices"),
    ],
)
def test_broken_declaration_is_found(parameter: Parameter, sentence: str) -> None:
    with pytest.raises(AssertionError, match=f"own: parameter strength: .*{sentence}"):
        check_method(build(mean, (parameter,)))


def test_parameter_declared_twice_is_found() -> None:
    with pytest.raises(AssertionError, match="declared twice"):
        check_method(build(mean, (NUMBER, NUMBER)))


def test_wrong_coefficients_are_found() -> None:
    def halves(_ctx: TensorContext, params: Parameters) -> Coefficients:
        return Coefficients(0.0, tuple(0.5 for _ in params.inputs))

    with pytest.raises(AssertionError, match="its coefficients are not what it computes"):
        check_method(replace(build(mean), coefficients=halves))


def test_choice_that_breaks_the_formula_is_found() -> None:
    kind = Parameter("kind", "merge", "mean", "Which.", choices=("mean", "first"))

    def apply(ctx: TensorContext, base: Tensor | None, inputs: Sequence[Tensor], params: Parameters, /) -> Tensor:
        return (
            inputs[0].clone() if params.choice("kind") == "first" else mean(inputs[0] if base is None else base, inputs)
        )

    with pytest.raises(AssertionError, match="changes the result"):
        check_method(Method("own", "Own", Needs("required", (1, None)), (kind,), "nobody", "R", apply))


def test_stages_of_a_method_that_does_not_need_the_model_are_found() -> None:
    with pytest.raises(AssertionError, match="its scope is not model"):
        check_method(replace(build(mean), stages=lambda _params: ()))
