"""What kernels are made with, and where they can run."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import triton

if TYPE_CHECKING:
    import torch

INTERPRETED = bool(cast("Any", triton).knobs.runtime.interpret)
"""Whether kernels are interpreted, on tensors in this process's memory."""


def compiled(function: Callable[..., Any]) -> Any:
    """Make a kernel, or a part of kernels, of a function in Triton's language."""
    return cast("Any", triton.jit)(function)


def runs_on(device: "torch.device") -> bool:
    """Return whether kernels can work on tensors of a device."""
    return device.type == ("cpu" if INTERPRETED else "cuda")
