"""What every merge method must keep, whatever its formula.

`check_method` runs a method with its default parameters, and with each other choice that it offers, over small tensors
of several shapes and dtypes. It says nothing about whether the formula is the paper's: that takes a reference of its
own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import TYPE_CHECKING

from evomerge.recipe.holes import Scalar
from evomerge.strategies.merge.mixtures import combined, products, shaped, vectors
from evomerge.strategies.merge.protocol import Method, Parameter, Parameters, TensorContext, Whole

if TYPE_CHECKING:
    from torch import Tensor

_SHAPES = ((), (0,), (1,), (7,), (5, 8))
_MANY = 3


@dataclass(frozen=True)
class _Case:
    """A method with tensors to merge; the same case with other tensors or another order is a `replace` away."""

    method: Method
    base: "Tensor | None"
    inputs: "tuple[Tensor, ...]"
    fingerprints: tuple[str, ...]
    chosen: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar])

    def run(self) -> "Tensor":
        stages = () if self.method.stages is None else self.method.stages(self.parameters)
        context = self.context
        for stage in stages:  # the whole model is this one tensor
            found = Whole(stage(context, self.base, self.inputs))
            context = replace(context, whole=(*context.whole, found))
        return self.method.apply(context, self.base, self.inputs, self.parameters)

    @property
    def context(self) -> TensorContext:
        return TensorContext("layers.0.mlp.weight", 0.5, 2, 11, self.fingerprints)

    @property
    def parameters(self) -> Parameters:
        def of(owner: str) -> dict[str, Scalar]:
            declared = [parameter for parameter in self.method.parameters if parameter.of == owner]
            return {parameter.name: self.chosen.get(parameter.name, parameter.default) for parameter in declared}

        return Parameters(of("merge"), tuple(of("input") for _ in self.inputs))

    @property
    def tensors(self) -> "tuple[Tensor, ...]":
        return self.inputs if self.base is None else (self.base, *self.inputs)


def check_method(method: Method) -> None:
    """Check a method against the contract. Raises AssertionError saying what does not hold.

    Checked: what it declares about its parameters; that shape and dtype are kept and nothing that comes in is changed
    or shared; that a repeated call gives the same bits; that the order of the inputs does not matter (unless
    `needs.ordered`); that experts equal to the base give the base; that zero tensors give finite numbers; that its
    coefficients, or the weights of its mixture, where it has them, are what it computes; that slices can be merged
    alone where `needs.scope` says element; that it has stages only where `needs.scope` says model.
    """
    _require(method.stages is None or method.needs.scope == "model", method, "has stages, and its scope is not model")
    for parameter in method.parameters:
        _check_parameter(method, parameter)
    choices = [{parameter.name: value} for parameter in method.parameters for value in parameter.choices]
    for make in (replace(case, chosen=chosen) for case in _cases(method) for chosen in choices or [{}]):
        for check in (_keeps_form, _is_repeatable, _ignores_order, _keeps_equal_models, _stands_zeros):
            check(make)
        _check_coefficients(make)
        _check_mixture(make)
        _check_slices(make)


def _require(holds: bool, method: Method, sentence: str) -> None:
    if not holds:
        raise AssertionError(f"{method.name}: {sentence}")


def _check_parameter(method: Method, parameter: Parameter) -> None:
    def require(holds: bool, sentence: str) -> None:
        _require(holds, method, f"parameter {parameter.name}: {sentence}")

    same = [other for other in method.parameters if (other.name, other.of) == (parameter.name, parameter.of)]
    require(len(same) == 1, "is declared twice")
    require(bool(parameter.doc.strip()), "says nothing about what it is")
    if parameter.choices:
        require(parameter.default in parameter.choices, f"the default {parameter.default!r} is not among the choices")
        return
    low, high = parameter.minimum, parameter.maximum
    numbers = {"default": parameter.default, "low": parameter.low, "high": parameter.high}
    for what, value in numbers.items():
        if value is None and what != "default":
            continue
        require(isinstance(value, int | float) and not isinstance(value, bool), f"the {what} {value!r} is not a number")
        number = float(value or 0)
        require(low is None or number >= low, f"the {what} {number:g} is below the minimum {low}")
        require(high is None or number <= high, f"the {what} {number:g} is above the maximum {high}")
    if parameter.low is not None and parameter.high is not None:
        require(parameter.low < parameter.high, "low is not below high")
        require(not parameter.log or parameter.low > 0, "a range in the logarithm must lie above zero")


def _cases(method: Method) -> list[_Case]:
    """Return a case for each shape, dtype and number of inputs, with a base where the method takes one."""
    import torch

    needs = method.needs
    least, most = needs.inputs
    cases: list[_Case] = []
    for count in sorted({least, min(most or _MANY, max(least, _MANY))}):
        for shape in _SHAPES:
            for dtype in (torch.float32, torch.float64):
                generator = torch.Generator().manual_seed(17)
                tensors = tuple(torch.randn(shape, dtype=dtype, generator=generator) for _ in range(count + 1))
                names = tuple(f"expert-{index}" for index in range(count))
                if needs.base != "required":
                    cases.append(_Case(method, None, tensors[1:], names))
                if needs.base in ("required", "optional"):
                    cases.append(_Case(method, tensors[0], tensors[1:], names))
                elif needs.base == "counted" and count > 1:
                    cases.append(_Case(method, tensors[0], tensors[1:-1], names[:-1]))
    return cases


def _keeps_form(case: _Case) -> None:
    before = [tensor.clone() for tensor in case.tensors]
    result = case.run()
    first = case.inputs[0]
    _require(result.shape == first.shape, case.method, f"shape {tuple(first.shape)} became {tuple(result.shape)}")
    _require(result.dtype == first.dtype, case.method, f"dtype {first.dtype} became {result.dtype}")
    unchanged = all(_same(old, new) for old, new in zip(before, case.tensors, strict=True))
    _require(unchanged, case.method, "a tensor that came in was changed")
    result.fill_(7)
    unshared = all(_same(old, new) for old, new in zip(before, case.tensors, strict=True))
    _require(unshared, case.method, "the result shares its memory with a tensor that came in")


def _is_repeatable(case: _Case) -> None:
    _require(_same(case.run(), case.run()), case.method, "the same call gave two results")


def _ignores_order(case: _Case) -> None:
    if case.method.needs.ordered:
        return
    expected = case.run()
    for order in permutations(range(len(case.inputs))):
        other = replace(
            case,
            inputs=tuple(case.inputs[index] for index in order),
            fingerprints=tuple(case.fingerprints[index] for index in order),
        )
        _require(_close(other.run(), expected), case.method, f"the order {order} of its inputs changes the result")


def _keeps_equal_models(case: _Case) -> None:
    if case.base is not None:
        same = replace(case, inputs=tuple(case.base.clone() for _ in case.inputs))
        _require(_close(same.run(), case.base), case.method, "experts equal to the base do not give the base")


def _stands_zeros(case: _Case) -> None:
    zeros = tuple(tensor.new_zeros(tensor.shape) for tensor in case.inputs)
    for base in (case.base, None if case.base is None else case.base.new_zeros(case.base.shape)):
        result = replace(case, base=base, inputs=zeros).run()
        _require(bool(result.isfinite().all()), case.method, "zero tensors give numbers that are not finite")


def _check_coefficients(case: _Case) -> None:
    if case.method.coefficients is None:
        return
    found = case.method.coefficients(case.context, case.parameters)
    _require(len(found.inputs) == len(case.inputs), case.method, "does not have a coefficient for each input")
    _require(case.base is not None or found.base == 0, case.method, "has a coefficient for a base that is not there")
    expected = case.inputs[0] * 0 if case.base is None else case.base * found.base
    for tensor, weight in zip(case.inputs, found.inputs, strict=True):
        expected = expected + tensor * weight
    _require(_close(case.run(), expected), case.method, "its coefficients are not what it computes")


def _check_mixture(case: _Case) -> None:
    mixture = case.method.mixture
    if mixture is None:
        return
    context = shaped(case.context, case.inputs[0])
    along = mixture.along(context, case.parameters)
    summed = vectors(mixture, case.base, case.inputs)
    found = products(summed, along)
    weights = mixture.weights(context, case.parameters, found.copy())
    _require(
        weights.dtype == found.dtype and weights.shape == found.shape[:2],
        case.method,
        f"the weights of its mixture are {weights.dtype} of shape {weights.shape}, not {found.dtype} {found.shape[:2]}",
    )
    expected = combined(mixture, summed, weights, along, case.base is not None)
    _require(_close(case.run(), expected), case.method, "the weights of its mixture are not what it computes")


def _check_slices(case: _Case) -> None:
    if case.method.needs.scope != "element" or case.inputs[0].dim() == 0:
        return

    def part(take: "Callable[[Tensor], Tensor]") -> "Tensor":
        inputs: Sequence[Tensor] = [take(tensor) for tensor in case.inputs]
        return replace(case, base=None if case.base is None else take(case.base), inputs=tuple(inputs)).run()

    _require(
        _close(part(lambda tensor: tensor[:2]), case.run()[:2]),
        case.method,
        "its scope is element, and a slice merged alone differs",
    )


def _same(left: "Tensor", right: "Tensor") -> bool:
    return bool(left.equal(right))


def _close(left: "Tensor", right: "Tensor") -> bool:
    return left.shape == right.shape and bool(left.double().allclose(right.double(), rtol=1e-5, atol=1e-5))
