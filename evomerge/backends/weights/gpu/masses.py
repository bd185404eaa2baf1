"""What brings randomly dropped task vectors back to the sum of their magnitudes: one more pass over the tensors.

Sums are taken in float64 and in a fixed order, so the same candidate is always the same model.
"""

from typing import Any

import triton.language as tl

from evomerge.backends.weights.gpu.jit import compiled
from evomerge.backends.weights.gpu.masks import randoms
from evomerge.backends.weights.gpu.numbers import load

# the types of Triton's language are not Python's
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false


@compiled
def add_masses(
    words: "Any",
    pieces: "Any",
    masses: "Any",
    WORDS: tl.constexpr,
    N: tl.constexpr,
    KINDS: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Write for each piece and model the sum of all magnitudes and of those that are kept: float64, (pieces, N, 2).

    `words` has the rows of `deltas.merge_deltas`.
    """
    number = tl.program_id(0)
    piece = pieces + 3 * number
    row = words + tl.load(piece) * WORDS
    size = tl.load(row)
    offsets = tl.arange(0, BLOCK)
    first = tl.load(piece + 1)
    last = first + tl.load(piece + 2)
    for i in tl.static_range(N):
        whole = tl.zeros((BLOCK,), tl.float64)
        kept = tl.zeros((BLOCK,), tl.float64)
        for block in range(first, last):
            start = tl.cast(block, tl.int64) * BLOCK
            there = offsets < size - start
            value = load(tl.load(row + 3 + i), start, offsets, there, KINDS[2 + i], ALIGNED)
            value = tl.abs(value - load(tl.load(row + 2), start, offsets, there, KINDS[1], ALIGNED)).to(tl.float64)
            inside = randoms(tl.load(row + 3 + N + i), start, BLOCK) <= tl.load(row + 3 + 2 * N + i)
            whole = whole + value
            kept = kept + value * tl.where(inside, 1.0, 0.0)
        place = masses + 2 * (number * N + i)
        tl.store(place, tl.sum(whole))
        tl.store(place + 1, tl.sum(kept))


@compiled
def set_factors(masses: "Any", firsts: "Any", numbers: "Any", N: tl.constexpr, BLOCK: tl.constexpr) -> None:
    """Write into `numbers` (see `deltas.merge_deltas`) each model's sum over that of what is kept; 1 where none is.

    The pieces of a tensor are those from firsts[tensor] up to, and without, firsts[tensor + 1].
    """
    job = tl.program_id(0)
    model = tl.program_id(1)
    offsets = tl.arange(0, BLOCK)
    whole = tl.zeros((BLOCK,), tl.float64)
    kept = tl.zeros((BLOCK,), tl.float64)
    last = tl.load(firsts + job + 1)
    for begin in range(tl.load(firsts + job), last, BLOCK):
        place = masses + 2 * ((begin + offsets) * N + model)
        there = begin + offsets < last
        whole = whole + tl.load(place, mask=there, other=0.0)
        kept = kept + tl.load(place + 1, mask=there, other=0.0)
    mass = tl.sum(kept)
    factor = tl.where(mass > 0, tl.sum(whole) / tl.where(mass > 0, mass, 1.0), 1.0)
    tl.store(numbers + job * (2 + 2 * N) + 2 + N + model, factor.to(tl.float32))
