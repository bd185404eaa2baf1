"""Adapters in the forward pass: a low-rank change is added to what its module gives, and the weights stay as they are.

The arithmetic is PEFT's for an adapter that is not merged, with a scale of one: y + (x Aᵀ) Bᵀ, in float32 factors even
where the model computes in a half type. Hooks are removed by `remove`; nothing else of the model is touched.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from evomerge.backends.weights.artifact import LowRank
from evomerge.errors import CandidateError


class Attached:
    """Low-rank changes on a model, until `remove`."""

    def __init__(self, model: nn.Module, factors: Mapping[str, LowRank]) -> None:
        """Attach `factors` by module name. Raises CandidateError, with nothing attached, where one does not fit."""
        modules = dict(cast("Iterator[tuple[str, nn.Module]]", model.named_modules()))
        changes = {name: _change(name, modules.get(name), change) for name, change in factors.items()}
        self._handles = [modules[name].register_forward_hook(change) for name, change in changes.items()]

    def remove(self) -> None:
        """Leave the model as it was. Calling it twice is harmless."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


class _Linear:
    """The hook of a linear module: `a` of shape (rank, in), `b` of shape (out, rank)."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self.a, self.b = a, b

    def __call__(self, _module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        narrow = functional.linear(args[0].to(self.a.dtype), self.a)
        return (output + functional.linear(narrow, self.b)).to(output.dtype)


class _Embedding:
    """The hook of an embedding: `a` of shape (rank, vocabulary), `b` of shape (width, rank)."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self.a, self.b = a.T.contiguous(), b.T.contiguous()

    def __call__(self, _module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return (output + functional.embedding(args[0], self.a) @ self.b).to(output.dtype)


def _change(name: str, module: nn.Module | None, change: LowRank) -> _Linear | _Embedding:
    match module:
        case nn.Linear():
            inward, outward, kind = module.in_features, module.out_features, _Linear
        case Conv1D():
            inward, outward, kind = module.weight.shape[0], module.weight.shape[1], _Linear
        case nn.Embedding() if type(module) is nn.Embedding:  # its subclasses scale what they look up
            inward, outward, kind = module.num_embeddings, module.embedding_dim, _Embedding
        case None:
            raise CandidateError(f"the adapter changes {name}, which the base model does not have; check its base")
        case _:
            raise CandidateError(f"the adapter changes {name}, a {type(module).__name__}, which takes none unmerged")
    if change.a.shape[1] != inward or change.b.shape[0] != outward:
        raise CandidateError(
            f"the adapter changes {name} as {change.b.shape[0]} x {change.a.shape[1]}, "
            f"where the base model has {outward} x {inward}; check its base"
        )
    device = module.weight.device
    return kind(change.a.to(device, torch.float32), change.b.to(device, torch.float32))
