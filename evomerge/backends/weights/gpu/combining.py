"""What becomes of the weighted task vectors' entries at one place: their sum, a vote on the sign, or another rule.

What is no number, or infinite, stays so whatever the rule. Nothing is multiplied and added in one step: opposite values
cancel, and elect no sign.
"""

from typing import Any

import triton.language as tl

from evomerge.backends.weights.gpu.jit import compiled

# the types of Triton's language are not Python's
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false

_NAN = tl.constexpr(tl.PropagateNan.ALL)


@compiled
def combine(values: "Any", weights: "Any", told: "Any", more: "Any", N: tl.constexpr, RULE: tl.constexpr) -> "Any":
    """Return one entry for those of N models, given their weights, a number, and another number for each model."""
    if RULE == "sum":
        found = _total(values, N)
    elif RULE == "clip":
        found = _clipped(values[0], told)
    elif RULE == "farthest":
        found = _farthest(values, N)
    elif RULE == "shared":
        found = _shared(values, told, more, N)
    elif RULE == "changed":
        found = _mean_of_changes(values, told, N)
    else:
        found = _voted(values, weights, N, RULE)
    return found


@compiled
def _total(values: "Any", N: tl.constexpr) -> "Any":
    found = values[0]
    for i in tl.static_range(1, N):
        found = found + values[i]
    return found


@compiled
def _voted(values: "Any", weights: "Any", N: tl.constexpr, RULE: tl.constexpr) -> "Any":
    """Return what the values of the elected sign have in common: their sum, mean by weight, or the largest."""
    sign = tl.where(_total(values, N) >= 0, 1.0, -1.0)
    own = tl.maximum(values[0] * sign, 0.0, propagate_nan=_NAN)
    found = own
    mass = tl.where(own > 0, tl.abs(weights[0]), 0.0)
    for i in tl.static_range(1, N):
        own = tl.maximum(values[i] * sign, 0.0, propagate_nan=_NAN)
        found = tl.maximum(found, own, propagate_nan=_NAN) if RULE == "agreeing max" else found + own
        mass = mass + tl.where(own > 0, tl.abs(weights[i]), 0.0)
    if RULE == "agreeing mean":
        found = tl.div_rn(found, tl.where(mass > 0, mass, 1.0))
    return found * sign


@compiled
def _clipped(value: "Any", most: "Any") -> "Any":
    """Return the nearest value of a magnitude of at most `most`."""
    value = tl.where(value > most, most, value)
    return tl.where(value < -most, -most, value)


@compiled
def _farthest(values: "Any", N: tl.constexpr) -> "Any":
    """Return the value of largest magnitude, of two opposite ones the positive."""
    highest = values[0]
    lowest = values[0]
    for i in tl.static_range(1, N):
        highest = tl.maximum(highest, values[i], propagate_nan=_NAN)
        lowest = tl.minimum(lowest, values[i], propagate_nan=_NAN)
    return tl.where(highest >= -lowest, highest, lowest)


@compiled
def _shared(values: "Any", least: "Any", thresholds: "Any", N: tl.constexpr) -> "Any":
    """Return the sum where it matters to at least `least` models, in terms of their thresholds; else zero."""
    together = _total(values, N)
    votes = tl.zeros_like(together)
    for i in tl.static_range(N):
        limit = tl.abs(together - values[i]) * thresholds[i]
        votes = votes + tl.where(tl.abs(values[i]) > limit, 1.0, 0.0)
    return together * tl.where(votes >= least, 1.0, 0.0)


@compiled
def _mean_of_changes(values: "Any", epsilon: "Any", N: tl.constexpr) -> "Any":
    """Return the mean of the values of a magnitude above epsilon."""
    changes = tl.zeros_like(values[0])
    found = tl.zeros_like(values[0])
    for i in tl.static_range(N):
        changed = tl.where(tl.abs(values[i]) > epsilon, 1.0, 0.0)
        changes = changes + changed
        found = found + values[i] * changed
    return tl.div_rn(found, tl.where(changes > 1, changes, 1.0))
