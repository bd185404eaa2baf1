"""Methods that are sums of their models with weights that follow from inner products: lengths, angles, projections.

Whoever declares one writes the weights alone; the sum and the products are here. The products are the same for all
parameters, so a study can compute them once and have a candidate for the price of a weighted sum. They are taken in
float64, so what hangs on them does not change with the number of threads beyond a float64's last bits.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import update_wrapper
from typing import TYPE_CHECKING, Literal

from evomerge.strategies.merge.protocol import (
    Along,
    Evidence,
    Method,
    Mixture,
    Needs,
    Parameter,
    Parameters,
    TensorContext,
)
from evomerge.strategies.merge.registry import method

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Weights = Callable[[TensorContext, Parameters, "NDArray[np.float64]"], "NDArray[np.float64]"]

_PIECE = 1 << 16  # elements of which a few tensors stay in a core's cache in float64
_SHORT = 1e-12


def mixture(
    name: str,
    *,
    of: Literal["models", "deltas"],
    along: Along | Callable[[TensorContext, Parameters], Along] = "tensor",
    title: str,
    needs: Needs,
    parameters: tuple[Parameter, ...],
    source: str,
    evidence: Evidence,
) -> Callable[[Weights], Method]:
    """Return a decorator that turns a function for the weights of a sum into a registered `Method`.

    What is summed and what the function gets and returns is said at `Mixture`.
    """

    def declare(weights: Weights) -> Method:
        mixed = Mixture(of, along if callable(along) else _always(along), weights)

        def apply(
            ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters
        ) -> "Tensor":
            origin = None if needs.base == "unused" else base
            summed = vectors(mixed, origin, inputs)
            told = shaped(ctx, inputs[0])
            lying = mixed.along(told, params)
            return combined(mixed, summed, weights(told, params, products(summed, lying)), lying, origin is not None)

        declared = method(
            name, title=title, needs=needs, parameters=parameters, source=source, evidence=evidence, mixture=mixed
        )
        return declared(update_wrapper(apply, weights))

    return declare


def _always(along: Along) -> Callable[[TensorContext, Parameters], Along]:
    return lambda _ctx, _params: along


def shaped(ctx: TensorContext, tensor: "Tensor") -> TensorContext:
    """Return the context with the tensor's shape, as a mixture's functions need it."""
    return replace(ctx, shape=tuple(tensor.shape))


def vectors(mixed: Mixture, base: "Tensor | None", inputs: "Sequence[Tensor]") -> "list[Tensor]":
    """Return the tensors that a mixture sums: models, or the base and the differences to it."""
    if base is None:
        return list(inputs)
    return [base, *(inputs if mixed.of == "models" else (tensor - base for tensor in inputs))]


def products(summed: "Sequence[Tensor]", along: Along) -> "NDArray[np.float64]":
    """Return all inner products of some tensors' vectors: float64, of shape (vectors, tensors, tensors)."""
    import torch

    count = len(summed)
    rows, columns = _matrix(summed[0])
    number = {"tensor": 1, "row": rows, "column": columns}[along]
    found = torch.zeros((number, count, count), dtype=torch.float64, device=summed[0].device)
    for span in _row_spans(rows, columns):
        part = torch.stack([tensor.reshape(rows, columns)[span].double() for tensor in summed])
        match along:
            case "tensor":
                flat = part.flatten(1)
                found[0] += flat @ flat.T
            case "row":
                found[span] = torch.einsum("mrc,nrc->rmn", part, part)
            case "column":
                found += torch.einsum("mrc,nrc->cmn", part, part)
    return found.cpu().numpy()


def combined(
    mixed: Mixture, summed: "Sequence[Tensor]", weights: "NDArray[np.float64]", along: Along, based: bool
) -> "Tensor":
    """Return the sum of some tensors' vectors times their weights, of shape (vectors, tensors)."""
    import torch

    rows, columns = _matrix(summed[0])
    shape = {"tensor": (1, 1), "row": (rows, 1), "column": (1, columns)}[along]
    shares = torch.from_numpy(weights).to(summed[0])
    result = torch.zeros_like(summed[0]).reshape(rows, columns)
    order = range(len(summed))
    for index in reversed(order) if based and mixed.of == "deltas" else order:  # small differences first
        result.addcmul_(summed[index].reshape(rows, columns), shares[:, index].reshape(shape))
    return result.reshape(summed[0].shape)


def of_inputs(products: "NDArray[np.float64]", params: Parameters) -> "NDArray[np.float64]":
    """Return the inner products of the inputs alone, whether there is a base or not."""
    first = products.shape[1] - len(params.inputs)
    return products[:, first:, first:]


def on_base(products: "NDArray[np.float64]", shares: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return the weights of a sum, of shape (vectors, models): one for the base where it is there, and the inputs'."""
    import numpy as np

    return np.pad(shares, ((0, 0), (products.shape[1] - shares.shape[1], 0)), constant_values=1.0)


def directions(products: "NDArray[np.float64]") -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Return the lengths of vectors and the cosines between them, of shape (vectors, models) and (.., models, models).

    A vector no longer than 1e-12 times the longest one has no direction: its length is 0, and it is at a right angle
    to all, itself included.
    """
    import numpy as np

    lengths = np.sqrt(np.diagonal(products, axis1=1, axis2=2))
    lengths = np.where(lengths > _SHORT * lengths.max(axis=1, keepdims=True, initial=0.0), lengths, 0.0)
    inverse = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return lengths, np.clip(products * inverse[:, :, None] * inverse[:, None, :], -1.0, 1.0)


def _matrix(tensor: "Tensor") -> tuple[int, int]:
    """Return the rows and columns of a tensor: its first dimension, and all others together."""
    if tensor.dim() < 2:
        return 1, tensor.numel()
    return tensor.shape[0], tensor[0].numel() if tensor.shape[0] else 0


def _row_spans(rows: int, columns: int) -> Iterator[slice]:
    step = max(_PIECE // max(columns, 1), 1)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
