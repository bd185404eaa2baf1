"""The loop of weighted sums: of models, or of a base and differences to it, with weights for tensors, rows or columns.

One launch serves many tensors, as in `deltas`.
"""

from typing import Any

import triton.language as tl

from evomerge.backends.weights.gpu.jit import compiled
from evomerge.backends.weights.gpu.numbers import load, store

# the types of Triton's language are not Python's
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false


@compiled
def merge_sum(
    words: "Any",
    numbers: "Any",
    pieces: "Any",
    bad: "Any",
    WORDS: tl.constexpr,
    N: tl.constexpr,
    KINDS: tl.constexpr,
    BASED: tl.constexpr,
    ALONG: tl.constexpr,
    ALIGNED: tl.constexpr,
    MASKED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Write sum w_i theta_i, or w_0 theta_0 + sum w_i (theta_i - theta_0); add to `bad` what is no finite number.

    `words` has rows (size, output, base, models, weights' address, columns, vectors), `numbers` rows of N + 1 weights.
    Weights along rows or columns are float32 of shape (N + 1, vectors) at the address. The first belongs to the base.
    """
    piece = pieces + 3 * tl.program_id(0)
    job = tl.load(piece)
    row = words + job * WORDS
    size = tl.load(row)
    out = tl.load(row + 1)
    base = tl.load(row + 2)
    models = ()
    for i in tl.static_range(N):
        models = models + (tl.load(row + 3 + i),)  # noqa: RUF005  # the language joins tuples by + alone
    own = numbers + job * (N + 1) if ALONG == "tensor" else tl.load(row + 3 + N).to(tl.pointer_type(tl.float32))
    columns = tl.load(row + 4 + N)
    stride = 1 if ALONG == "tensor" else tl.load(row + 5 + N)
    offsets = tl.arange(0, BLOCK)
    wrong = tl.zeros((BLOCK,), tl.int32)
    first = tl.load(piece + 1)
    for block in range(first, first + tl.load(piece + 2)):
        start = tl.cast(block, tl.int64) * BLOCK
        there = offsets < size - start if MASKED else None
        at = _vector(own, start, offsets, columns, size, ALONG)
        if BASED:
            origin = load(base, start, offsets, there, KINDS[1], ALIGNED)
            value = load(models[0], start, offsets, there, KINDS[2], ALIGNED) - origin
        else:
            value = load(models[0], start, offsets, there, KINDS[2], ALIGNED)
        result = value * tl.load(at + stride)
        for i in tl.static_range(1, N):
            value = load(models[i], start, offsets, there, KINDS[2 + i], ALIGNED)
            if BASED:
                value = value - origin
            result = result + value * tl.load(at + (1 + i) * stride)
        if BASED:
            result = origin * tl.load(at) + result
        wrong = wrong + store(out, start, offsets, there, result, KINDS[0], ALIGNED)
    count = tl.sum(wrong)
    if count > 0:
        tl.atomic_add(bad, count.to(tl.int64))


@compiled
def _vector(own: "Any", start: "Any", offsets: "Any", columns: "Any", size: "Any", ALONG: tl.constexpr) -> "Any":
    """Return where the first weights of elements stand."""
    if ALONG == "tensor":
        at = own
    else:
        index = tl.minimum(start + offsets, size - 1)
        at = own + (index // columns if ALONG == "row" else index % columns)
    return at
