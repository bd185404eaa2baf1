"""The methods that sparsify, once more in numpy and float64, from the formulas, sharing no code with the package.

Plain loops over coordinates wherever a vectorised form could repeat the package's mistakes.
"""

from collections.abc import Sequence

import numpy as np

from tests.strategies.merge.reference import Array, coarse, consensus, uniform
from tests.strategies.merge.support import TENSOR


def ranked(values: Sequence[float]) -> list[int]:
    """Return the indices by falling magnitude as bfloat16 has it, then by rising index."""
    return sorted(range(len(values)), key=lambda index: (-coarse(values[index]), index))


def count(size: int, share: float) -> int:
    """Return how many of so many a share above zero is: the whole part, and at least one."""
    return max(1, int(size * share)) if size and share > 0 else 0


def flattened(model: Sequence[Array]) -> Array:
    return np.concatenate([tensor.ravel() for tensor in model])


def unflattened(flat: Array, like: Sequence[Array]) -> list[Array]:
    ends = np.cumsum([tensor.size for tensor in like])
    return [part.reshape(own.shape) for part, own in zip(np.split(flat, ends[:-1]), like, strict=True)]


def keep(tau: Array, indices: Sequence[int]) -> Array:
    kept = np.zeros_like(tau)
    for index in indices:
        kept.flat[index] = tau.flat[index]
    return kept


def ties_of_models(
    base: Sequence[Array], models: Sequence[Sequence[Array]], weights: Sequence[float], densities: Sequence[float]
) -> list[Array]:
    """Return TIES with the trim over whole models, each a list of its tensors."""
    origin = flattened(base)
    trimmed: list[Array] = []
    for model, weight, density in zip(models, weights, densities, strict=True):
        tau = flattened(model) - origin
        trimmed.append(weight * keep(tau, ranked(list(tau))[: count(tau.size, density)]))
    return unflattened(origin + consensus(trimmed, weights, "mean"), base)


def without_tails(tau: Array, density: float, gamma: float) -> Array:
    kept = count(tau.size, density)
    outliers = min(int(tau.size * gamma), tau.size - kept)
    return keep(tau, ranked(list(tau.ravel()))[outliers : outliers + kept])


def breadcrumbs(
    base: Array,
    models: Sequence[Array],
    weights: Sequence[float],
    densities: Sequence[float],
    *,
    gammas: Sequence[float],
    merge_func: str | None = None,
) -> Array:
    """Return Breadcrumbs with a sum (no `merge_func`) or with TIES' vote."""
    weighted = [
        weight * without_tails(model - base, density, gamma)
        for model, weight, density, gamma in zip(models, weights, densities, gammas, strict=True)
    ]
    return base + (np.add.reduce(weighted) if merge_func is None else consensus(weighted, weights, merge_func))


def della_chances(row: Sequence[float], density: float, epsilon: float) -> list[float]:
    """Return the chance of each entry of a row to be kept."""
    size = len(row)
    rising = list(reversed(ranked(row)))
    if size == 1:
        return [density]
    return [density - epsilon + 2 * epsilon * rising.index(index) / (size - 1) for index in range(size)]


def della_drop(tau: Array, density: float, epsilon: float, rescale: str, *, seed: int, fingerprint: str) -> Array:
    rows = tau.reshape(1, -1) if tau.ndim < 2 else tau.reshape(len(tau), -1)
    kept, width = np.zeros_like(rows), rows.shape[1]
    for number, row in enumerate(rows):
        for column, chance in enumerate(della_chances(list(row), density, epsilon)):
            if uniform(seed, TENSOR, fingerprint, number * width + column) < chance:
                kept[number, column] = row[column] / (chance if rescale == "unbiased" else 1)
    left = np.abs(kept).sum()
    if rescale == "l1" and left > 0:
        kept *= np.abs(tau).sum() / left
    return kept.reshape(tau.shape)


def della(
    base: Array,
    models: Sequence[Array],
    weights: Sequence[float],
    densities: Sequence[float],
    *,
    epsilon: float,
    rescale: str,
    seed: int,
    merge_func: str | None,
) -> Array:
    """Return DELLA with a sum (no `merge_func`) or with TIES' vote."""
    weighted = [
        weight * della_drop(model - base, density, epsilon, rescale, seed=seed, fingerprint=f"expert-{index}")
        for index, (model, weight, density) in enumerate(zip(models, weights, densities, strict=True))
    ]
    return base + (np.add.reduce(weighted) if merge_func is None else consensus(weighted, weights, merge_func))


def sce(base: Array, models: Sequence[Array], select_topk: float) -> Array:
    taus = [model - base for model in models]
    variance = np.var(taus, axis=0) * np.any([tau != taus[0] for tau in taus], axis=0)
    if not variance.any():
        return base + taus[0]
    chosen = list(range(base.size))
    if select_topk < 1:
        flat = list(variance.ravel())
        chosen = ranked(flat)[: count(int(np.count_nonzero(flat)), select_topk)]
    taus = [keep(tau, chosen) for tau in taus]
    energies = [float((tau**2).sum()) for tau in taus]
    merged = np.zeros_like(base)
    for place in np.ndindex(base.shape):
        sign = 1 if sum(tau[place] for tau in taus) >= 0 else -1
        agreeing = [(tau[place], energy) for tau, energy in zip(taus, energies, strict=True) if tau[place] * sign > 0]
        mass = max(sum(energy for _, energy in agreeing) / max(sum(energies), 1e-300), 1e-6)
        merged[place] = sum(value * energy for value, energy in agreeing) / max(sum(energies), 1e-300) / mass
    return base + merged


def fine(value: float) -> float:
    """Return a number with 12 significant bits, rounded half away from zero."""
    fraction, exponent = np.frexp(np.float32(value))
    return float(np.ldexp(np.copysign(np.floor(abs(float(fraction)) * 4096 + 0.5), fraction) / 4096, int(exponent)))


def at(ordered: Sequence[float], position: int) -> float:
    """Return an order statistic: exact at the ends, with 12 significant bits between."""
    return ordered[position] if position in (0, len(ordered) - 1) else fine(ordered[position])


def between(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.0


def pcb(
    base: Sequence[Array],
    models: Sequence[Sequence[Array]],
    weights: Sequence[float],
    densities: Sequence[float],
    scale: float,
) -> list[Array]:
    """Return PCB-Merging of whole models, each a list of its tensors."""
    origin = flattened(base)
    taus = [flattened(model) - origin for model in models]
    size, count_ = origin.size, len(models)
    above, below = np.zeros(size), np.zeros(size)
    together = np.add.reduce(taus)
    for tau, weight, density in zip(taus, weights, densities, strict=True):
        lengths = sorted(abs(tau))
        cut = int(size * 1e-4)
        low, high = at(lengths, cut), at(lengths, size - 1 - cut)
        clamped = np.clip(abs(tau), low, high)
        balance = [  # divided by the largest exponential: scores do not change, and where 12 bits end is agreed on
            np.exp(count_ * (between(clamped[index], low, high) ** 2 - 1)) * np.tanh(tau[index] * together[index])
            for index in range(size)
        ]
        ordered = sorted(balance)
        position = min(int(size * (1 - density)), size - 1)
        limit = at(ordered, position)
        for index in range(size):
            beaten = fine(balance[index]) > fine(ordered[position])
            score = between(balance[index], limit, ordered[-1]) if beaten else 0.0
            above[index] += weight * np.sign(tau[index]) * clamped[index] * score
            below[index] += score
    return unflattened(origin + scale * above / np.maximum(below, 1e-12), base)


def tall(
    base: Array, models: Sequence[Array], weights: Sequence[float], thresholds: Sequence[float], least: int
) -> Array:
    merged = np.zeros_like(base)
    for place in np.ndindex(base.shape):
        taus = [float(weight * (model[place] - base[place])) for weight, model in zip(weights, models, strict=True)]
        votes = sum(abs(tau) > limit * abs(sum(taus) - tau) for tau, limit in zip(taus, thresholds, strict=True))
        merged[place] = sum(taus) if votes >= least else 0.0
    return base + merged


def magmax(base: Array, models: Sequence[Array], weights: Sequence[float]) -> Array:
    merged = np.zeros_like(base)
    for place in np.ndindex(base.shape):
        taus = [weight * (model[place] - base[place]) for weight, model in zip(weights, models, strict=True)]
        merged[place] = max(taus, key=lambda tau: (abs(tau), tau))
    return base + merged


def ram(base: Array, models: Sequence[Array], epsilon: float, gain: float = 0.0, limit: float = 0.0) -> Array:
    taus = [np.where(abs(model - base) > epsilon, model - base, 0.0) for model in models]
    merged = np.zeros_like(base)
    gains: list[float] = []
    for tau in taus:
        places = [place for place in np.ndindex(base.shape) if tau[place] != 0]
        own = sum(sum(other[place] != 0 for other in taus) == 1 for place in places)
        gains.append(1 + gain * min((len(places) - own) / own, limit) if own else 1.0)
    for place in np.ndindex(base.shape):
        there = [(tau[place], gain) for tau, gain in zip(taus, gains, strict=True) if tau[place] != 0]
        if len(there) == 1:
            merged[place] = there[0][0] * there[0][1]
        elif there:
            merged[place] = sum(tau for tau, _ in there) / len(there)
    return base + merged
