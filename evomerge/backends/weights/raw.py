"""A tensor as it is stored: its bytes as numbers, its dtype's name and its shape, without torch.

What is read from files and what is written to them has this form, so that a merge whose method has a kernel never needs
torch. The other way round, `tensor` and `of` share the memory with torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_NUMBERS: Mapping[str, str] = {
    "BF16": "uint16",
    "F16": "int16",
    "F32": "float32",
    "BOOL": "bool",
    **{kind: kind.replace("U", "uint").replace("I", "int") for kind in ("U8", "I8", "U16", "I16", "U32", "I32")},
    "U64": "uint64",
    "I64": "int64",
}
"""What numpy reads each dtype as: numbers of its own, or (bfloat16, float16) the bits as integers."""

_TORCH: Mapping[str, str] = {"BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True, slots=True)
class Raw:
    """Elements in row-major order, flat; `dtype` in the words of safetensors (BF16, F16, F32, I64, ...)."""

    elements: "NDArray[Any]"
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def empty(cls, dtype: str, shape: tuple[int, ...]) -> "Raw":
        """Return room for a tensor."""
        import numpy as np

        return cls(np.empty(math.prod(shape), _NUMBERS[dtype]), dtype, shape)

    @classmethod
    def view(cls, data: "NDArray[Any]", dtype: str, shape: tuple[int, ...]) -> "Raw":
        """Return a tensor over bytes (uint8)."""
        return cls(data.view(_NUMBERS[dtype]), dtype, shape)

    @classmethod
    def of(cls, tensor: "Tensor") -> "Raw":
        """Return a tensor of torch, sharing its memory where it is contiguous and on the CPU."""
        import torch

        flat = tensor.detach().contiguous().reshape(-1).cpu()
        name = {torch.bfloat16: "BF16", torch.float16: "F16", torch.bool: "BOOL"}.get(tensor.dtype)
        if name is None:
            name = str(tensor.dtype).removeprefix("torch.").replace("uint", "U").replace("int", "I")
            name = name.replace("float", "F")
        if name in _TORCH:
            flat = flat.view(torch.int16)
        return cls(flat.numpy().view(_NUMBERS[name]), name, tuple(tensor.shape))

    def tensor(self) -> "Tensor":
        """Return the tensor for torch, sharing its memory."""
        import torch

        if self.dtype in _TORCH:
            bits = torch.from_numpy(self.elements.view("int16"))
            return bits.view(getattr(torch, _TORCH[self.dtype])).reshape(self.shape)
        return torch.from_numpy(self.elements).reshape(self.shape)

    def float32(self) -> "Tensor":
        """Return the tensor for torch in float32, a copy unless it is that already."""
        return self.tensor().float()
