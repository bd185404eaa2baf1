"""Random masks from a counter: whether an element is kept follows from what it is, not from when it is visited.

Element i is kept iff u(seed, tensor name, expert's fingerprint, i) is below the density. So order, sharding, threads
and devices change nothing, masks of growing density are nested, and two candidates of one seed differ by their
densities alone. u is a multiple of 2^-32 in [0, 1), the same bits on every device.

The numbers: a 64-bit key is the BLAKE2b hash of (seed, name, fingerprint); word j is the SplitMix64 finaliser
(Steele, Lea & Flood 2014) of key + (j + 1) * golden ratio, and serves two elements: its lower half 2j, its upper half
2j + 1. A half is read as a signed 32-bit number h, and u = (h + 2^31) / 2^32.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
_CPU_PIECE = 1 << 16  # words that, with their scratch, stay in a core's cache
_GPU_PIECE = 1 << 24


def expert_key(seed: int, tensor: str, fingerprint: str) -> int:
    """Return the 64-bit key of one expert's mask for one tensor."""
    text = json.dumps([seed, tensor, fingerprint])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def drop_(flat: "Tensor", key: int, density: float, *, offset: int = 0) -> "Tensor":
    """Set to zero, in place, the elements that are not kept, and return the tensor.

    `flat` has one dimension and may be a slice of a larger tensor; `offset` is the flat index of its first element
    there. `density` is above 0 and at most 1, where all is kept. Raises ValueError beyond.
    """
    if not 0 < density <= 1:
        raise ValueError(f"a mask's density must be above 0 and at most 1, and it is {density}")
    highest = highest_kept(density)
    for span, halves in _halves(flat, key, offset):
        flat[span].mul_(halves <= highest)
    return flat


def drop_each_(flat: "Tensor", key: int, densities: "Tensor", *, offset: int = 0) -> "Tensor":
    """The same as `drop_`, with a density for each element: float32 of the shape of `flat`.

    Compared are 2^32 u and 2^32 times the density, both rounded to float32, and equal ones are kept: so a density of 1
    keeps all, and no chance is off by more than a part in 2^24.
    """
    import torch

    for span, halves in _halves(flat, key, offset):
        numbers = halves.to(torch.int64).add_(1 << 31).to(torch.float32)
        flat[span].mul_(numbers <= densities[span].mul(float(1 << 32)))
    return flat


def _halves(flat: "Tensor", key: int, offset: int) -> "Iterator[tuple[slice, Tensor]]":
    """Yield slices that cover a tensor, each with the signed numbers h of its elements, which the next overwrites."""
    import torch

    first, last = offset // 2, (offset + flat.numel() + 1) // 2
    piece = min(_CPU_PIECE if flat.device.type == "cpu" else _GPU_PIECE, last - first)
    ramp = torch.arange(1, piece + 1, dtype=torch.int64, device=flat.device).mul_(_signed(_GOLDEN))
    words, scratch = torch.empty_like(ramp), torch.empty_like(ramp)
    for start in range(first, last, max(piece, 1)):
        size = min(piece, last - start)
        _fill(words[:size], scratch[:size], ramp[:size], key + start * _GOLDEN)
        begin, end = max(2 * start, offset), min(2 * (start + size), offset + flat.numel())
        halves = words[:size].view(torch.int32)[begin - 2 * start : end - 2 * start]
        yield slice(begin - offset, end - offset), halves


def _fill(words: "Tensor", scratch: "Tensor", ramp: "Tensor", start: int) -> None:
    """Write the finaliser of start + ramp into `words`. int64 stands in for uint64: sums and products wrap alike."""
    import torch

    torch.add(ramp, _signed(start), out=words)
    for shift, factor in _ROUNDS:
        torch.bitwise_right_shift(words, shift, out=scratch)
        scratch.bitwise_and_((1 << (64 - shift)) - 1)  # the shift of a signed number copies its sign: take it away
        words.bitwise_xor_(scratch)
        if factor != 1:
            words.mul_(_signed(factor))


def highest_kept(density: float) -> int:
    """Return the largest int32 h whose u = (h + 2^31) / 2^32 is below the density."""
    return math.ceil(density * (1 << 32)) - 1 - (1 << 31)


def _signed(word: int) -> int:
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word
