"""The merge methods once more, in numpy and float64, written from the formulas and sharing no code with the package.

Plain loops over coordinates wherever a vectorised form could repeat the package's mistakes.
"""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MASK64 = (1 << 64) - 1


def linear(models: Sequence[Array], weights: Sequence[float], normalize: bool = True) -> Array:
    whole = sum(weights) if normalize else 1.0
    return np.add.reduce([weight / whole * model for weight, model in zip(weights, models, strict=True)])


def task_arithmetic(
    base: Array, models: Sequence[Array], weights: Sequence[float], scale: float = 1.0, normalize: bool = False
) -> Array:
    return base + scale * linear([model - base for model in models], weights, normalize)


def slerp(start: Array, end: Array, t: float) -> Array:
    a, b = start.ravel(), end.ravel()
    short = np.linalg.norm(a) <= 1e-8 and np.linalg.norm(b) <= 1e-8
    unit = [v / np.linalg.norm(v) if np.linalg.norm(v) > 1e-8 else v for v in (a, b)]
    cosine = float(np.dot(*unit))
    if short or abs(cosine) > 0.9995:
        return (1 - t) * start + t * end
    omega = np.arccos(cosine)
    return (np.sin((1 - t) * omega) * start + np.sin(t * omega) * end) / np.sin(omega)


def coarse(value: float) -> float:
    """Return a number's magnitude with 8 significant bits, rounded half to even, as bfloat16 has it."""
    fraction, exponent = np.frexp(abs(np.float32(value)))
    return float(np.ldexp(np.round(float(fraction) * 256) / 256, int(exponent)))


def trim(tau: Array, density: float) -> Array:
    """Keep int(n * density) entries, at least one: by falling magnitude as bfloat16 has it, then by rising index."""
    flat = tau.ravel()
    count = 0 if density == 0 or flat.size == 0 else max(1, int(flat.size * density))
    ranked = sorted(range(flat.size), key=lambda index: (-coarse(flat[index]), index))
    kept = np.zeros_like(flat)
    for index in ranked[:count]:
        kept[index] = flat[index]
    return kept.reshape(tau.shape)


def consensus(weighted: Sequence[Array], weights: Sequence[float], merge_func: str) -> Array:
    merged = np.zeros_like(weighted[0])
    for place in np.ndindex(merged.shape):
        entries = [float(delta[place]) for delta in weighted]
        positive = sum(entries) >= 0
        agreeing = [
            (entry, abs(weight))
            for entry, weight in zip(entries, weights, strict=True)
            if entry != 0 and (entry > 0) == positive
        ]
        if not agreeing:
            continue
        if merge_func == "max":
            merged[place] = max((entry for entry, _ in agreeing), key=abs)
        else:
            whole = sum(weight for _, weight in agreeing) if merge_func == "mean" else 1.0
            merged[place] = sum(entry for entry, _ in agreeing) / whole
    return merged


def ties(
    base: Array,
    models: Sequence[Array],
    weights: Sequence[float],
    densities: Sequence[float],
    *,
    scale: float = 1.0,
    merge_func: str = "mean",
) -> Array:
    weighted = [
        weight * trim(model - base, density) for model, weight, density in zip(models, weights, densities, strict=True)
    ]
    return base + scale * consensus(weighted, weights, merge_func)


def uniform(seed: int, tensor: str, fingerprint: str, index: int) -> float:
    """Return u(seed, tensor, fingerprint, index) in [0, 1), with Python's own integers."""
    text = json.dumps([seed, tensor, fingerprint]).encode()
    key = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    word = (key + (index // 2 + 1) * 0x9E3779B97F4A7C15) & MASK64
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK64
    word ^= word >> 31
    half = (word >> 32) if index % 2 else (word & 0xFFFFFFFF)
    return ((half + (1 << 31)) % (1 << 32)) / (1 << 32)


def drop(tau: Array, density: float, rescale: str, *, seed: int, tensor: str, fingerprint: str) -> Array:
    flat = tau.ravel()
    kept = np.array(
        [value if uniform(seed, tensor, fingerprint, index) < density else 0.0 for index, value in enumerate(flat)]
    ).reshape(tau.shape)
    if rescale == "unbiased":
        return kept / density
    mass = np.abs(kept).sum()
    return kept * (np.abs(tau).sum() / mass) if mass > 0 else kept


def dare(
    base: Array,
    models: Sequence[Array],
    weights: Sequence[float],
    densities: Sequence[float],
    *,
    seed: int,
    tensor: str,
    fingerprints: Sequence[str],
    scale: float = 1.0,
    rescale: str = "unbiased",
    merge_func: str | None = None,
    normalize: bool = False,
) -> Array:
    """Return DARE with a sum (no `merge_func`) or with TIES' vote."""
    dropped = [
        drop(model - base, density, rescale, seed=seed, tensor=tensor, fingerprint=fingerprint)
        for model, density, fingerprint in zip(models, densities, fingerprints, strict=True)
    ]
    if merge_func is None:
        return base + scale * linear(dropped, weights, normalize)
    weighted = [weight * delta for weight, delta in zip(weights, dropped, strict=True)]
    return base + scale * consensus(weighted, weights, merge_func)
