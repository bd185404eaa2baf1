"""The loop of all methods that combine the entries of task vectors place by place, trimmed or dropped before or not.

One launch serves tensors of any number and size that have models of the same number and dtypes. What belongs to a
tensor stands in its row of the tables that `batches` makes.
"""

from typing import Any

import triton.language as tl

from evomerge.backends.weights.gpu.combining import combine
from evomerge.backends.weights.gpu.jit import compiled
from evomerge.backends.weights.gpu.masks import randoms
from evomerge.backends.weights.gpu.numbers import load, store

# the types of Triton's language are not Python's
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false


@compiled
def merge_deltas(
    words: "Any",
    numbers: "Any",
    pieces: "Any",
    bounds: "Any",
    cuts: "Any",
    bad: "Any",
    WORDS: tl.constexpr,
    N: tl.constexpr,
    KINDS: tl.constexpr,
    HOW: tl.constexpr,
    RULE: tl.constexpr,
    ALIGNED: tl.constexpr,
    MASKED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Write base + scale * rule(weighted entries), and add to `bad` how many results are no finite number.

    `words` has rows (size, output, base, models, keys, highest random numbers kept), `numbers` rows (scale, a number
    for the rule, weights, and a number for each model: its factor where entries are dropped, else one for the rule).
    `bounds` (tensors, N, ends, 2) and `cuts` (tensors, N, ends) say what a model's band is, see `ends`.
    """
    piece = pieces + 3 * tl.program_id(0)
    job = tl.load(piece)
    row = words + job * WORDS
    own = numbers + job * (2 + 2 * N)
    size = tl.load(row)
    out = tl.load(row + 1)
    base = tl.load(row + 2)
    scale = tl.load(own)
    told = tl.load(own + 1)
    models = ()
    weights = ()
    more = ()
    for i in tl.static_range(N):
        models = models + (tl.load(row + 3 + i),)  # noqa: RUF005  # the language joins tuples by + alone
        weights = weights + (tl.load(own + 2 + i),)  # noqa: RUF005
        more = more + (tl.load(own + 2 + N + i),)  # noqa: RUF005
    offsets = tl.arange(0, BLOCK)
    wrong = tl.zeros((BLOCK,), tl.int32)
    first = tl.load(piece + 1)
    for block in range(first, first + tl.load(piece + 2)):
        start = tl.cast(block, tl.int64) * BLOCK
        there = offsets < size - start if MASKED else None
        origin = load(base, start, offsets, there, KINDS[1], ALIGNED)
        values = ()
        for i in tl.static_range(N):
            value = load(models[i], start, offsets, there, KINDS[2 + i], ALIGNED) - origin
            if HOW == "drop":
                kept = randoms(tl.load(row + 3 + N + i), start, BLOCK) <= tl.load(row + 3 + 2 * N + i)
                value = value * tl.where(kept, more[i], 0.0)
            if HOW == "all" or HOW == "drop":  # noqa: PLR1714  # the language has no `in`
                value = value * weights[i]
            values = values + (value,)  # noqa: RUF005
        if HOW == "low" or HOW == "band":  # noqa: PLR1714
            ends: tl.constexpr = 1 if HOW == "low" else 2
            mine = job * (N * ends)
            if _is_cut(cuts + mine, start, N * ends, BLOCK):
                values = _trimmed(values, weights, bounds + 2 * mine, cuts + mine, start + offsets, N, ends)
            else:
                values = _trimmed(values, weights, bounds + 2 * mine, cuts + mine, start, N, ends)
        result = origin + scale * combine(values, weights, told, more, N, RULE)
        wrong = wrong + store(out, start, offsets, there, result, KINDS[0], ALIGNED)
    count = tl.sum(wrong)
    if count > 0:
        tl.atomic_add(bad, count.to(tl.int64))


@compiled
def _is_cut(cuts: "Any", start: "Any", COUNT: tl.constexpr, BLOCK: tl.constexpr) -> "Any":
    """Return whether any bound changes inside a block, which few do."""
    found = False
    for end in tl.static_range(COUNT):
        cut = tl.load(cuts + end)
        found = found | ((cut > start) & (cut < start + BLOCK))
    return found


@compiled
def _trimmed(
    values: "Any", weights: "Any", bounds: "Any", cuts: "Any", index: "Any", N: tl.constexpr, ENDS: tl.constexpr
) -> "Any":
    """Return weighted values, zero outside their bands: below the low bound, or from the high one on.

    `index` is that of each value, or one that has the same bounds as all of them.
    """
    found = ()
    for i in tl.static_range(N):
        size = tl.abs(values[i])
        kept = size >= _bound(bounds, cuts, i * ENDS, index)
        if ENDS == 2:
            kept = kept & (size < _bound(bounds, cuts, i * ENDS + 1, index))
        found = found + (values[i] * tl.where(kept, weights[i], 0.0),)  # noqa: RUF005
    return found


@compiled
def _bound(bounds: "Any", cuts: "Any", end: "Any", index: "Any") -> "Any":
    """Return the bound at one index, or at each of several."""
    return tl.where(index < tl.load(cuts + end), tl.load(bounds + 2 * end), tl.load(bounds + 2 * end + 1))
