"""Work on one value for each model inside a kernel, for any number of models.

A loop over models inside the loop over elements would keep the compiler from working on many elements at once. These
functions are unrolled when a kernel is compiled: the number of models is part of the arguments' types.
"""

from collections.abc import Callable
from typing import Any

from evomerge.backends.weights.kernels.jit import inlined, overload

# pyright: reportUnusedFunction=false, reportUnusedParameter=false

Function = Callable[..., Any]
Values = tuple[Any, ...]


def each(function: Function, values: Values, *others: Values) -> Values:
    """Return the function's results for the first of all values, for the second of all, and so on; four at most."""
    raise NotImplementedError


@overload(each)
def _each(function: Any, values: Any) -> Function:
    def one(function: Any, values: Any) -> Any:
        return (function(values[0]),)

    def more(function: Any, values: Any) -> Any:
        return (function(values[0]),) + each(function, values[1:])

    return one if len(values) == 1 else more


@overload(each)
def _each_two(function: Any, values: Any, others: Any) -> Function:
    def one(function: Any, values: Any, others: Any) -> Any:
        return (function(values[0], others[0]),)

    def more(function: Any, values: Any, others: Any) -> Any:
        return (function(values[0], others[0]),) + each(function, values[1:], others[1:])

    return one if len(values) == 1 else more


@overload(each)
def _each_three(function: Any, values: Any, others: Any, third: Any) -> Function:
    def one(function: Any, values: Any, others: Any, third: Any) -> Any:
        return (function(values[0], others[0], third[0]),)

    def more(function: Any, values: Any, others: Any, third: Any) -> Any:
        return (function(values[0], others[0], third[0]),) + each(function, values[1:], others[1:], third[1:])

    return one if len(values) == 1 else more


@overload(each)
def _each_four(function: Any, values: Any, others: Any, third: Any, fourth: Any) -> Function:
    def one(function: Any, values: Any, others: Any, third: Any, fourth: Any) -> Any:
        return (function(values[0], others[0], third[0], fourth[0]),)

    def more(function: Any, values: Any, others: Any, third: Any, fourth: Any) -> Any:
        rest = each(function, values[1:], others[1:], third[1:], fourth[1:])
        return (function(values[0], others[0], third[0], fourth[0]),) + rest

    return one if len(values) == 1 else more


def each_with(function: Function, values: Values, *shared: Any) -> Values:
    """Return the function's results for the first value, the second, and so on, each with the shared arguments."""
    raise NotImplementedError


@overload(each_with)
def _each_with(function: Any, values: Any, shared: Any) -> Function:
    def one(function: Any, values: Any, shared: Any) -> Any:
        return (function(values[0], shared),)

    def more(function: Any, values: Any, shared: Any) -> Any:
        return (function(values[0], shared),) + each_with(function, values[1:], shared)

    return one if len(values) == 1 else more


@overload(each_with)
def _each_with_two(function: Any, values: Any, shared: Any, second: Any) -> Function:
    def one(function: Any, values: Any, shared: Any, second: Any) -> Any:
        return (function(values[0], shared, second),)

    def more(function: Any, values: Any, shared: Any, second: Any) -> Any:
        return (function(values[0], shared, second),) + each_with(function, values[1:], shared, second)

    return one if len(values) == 1 else more


@inlined
def times(value: Any, weight: Any) -> Any:
    """Return a product."""
    return value * weight


@inlined
def minus(value: Any, other: Any) -> Any:
    """Return a difference."""
    return value - other


@inlined
def item(values: Any, index: Any) -> Any:
    """Return one of some values of a type."""
    return values[index]


def total(values: Values) -> Any:
    """Return the sum, added from the first to the last."""
    raise NotImplementedError


@overload(total)
def _total(values: Any) -> Function:
    def one(values: Any) -> Any:
        return values[0]

    def more(values: Any) -> Any:
        return total(values[:-1]) + values[-1]

    return one if len(values) == 1 else more


def largest(values: Values) -> Any:
    """Return the largest value."""
    raise NotImplementedError


@overload(largest)
def _largest(values: Any) -> Function:
    def one(values: Any) -> Any:
        return values[0]

    def more(values: Any) -> Any:
        rest = largest(values[1:])
        return values[0] if values[0] > rest else rest

    return one if len(values) == 1 else more
