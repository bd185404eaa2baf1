"""Means of directions, layers by depth and swaps once more: numpy and plain loops in float64, from the formulas.

Nothing is shared with the package. Where it uses a closed form or inner products, the procedure that it stands for is
carried out here on the vectors themselves.
"""

import math
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from typing import Any

import numpy as np

from tests.strategies.merge.reference import Array


def unit(vector: Array) -> Array:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else np.zeros_like(vector)


def by_vector(merge: Callable[[list[Array]], Array], tensors: Sequence[Array], along: str) -> Array:
    """Return the merge of tensors vector by vector; a tensor of less than two dimensions is one vector."""
    if along == "tensor" or tensors[0].ndim < 2:
        return merge([tensor.ravel() for tensor in tensors]).reshape(tensors[0].shape)
    flat = [tensor.reshape(len(tensor), -1) for tensor in tensors]
    flat = [matrix.T for matrix in flat] if along == "column" else flat
    merged = np.array([merge([matrix[index] for matrix in flat]) for index in range(len(flat[0]))])
    merged = merged.reshape(flat[0].shape)
    return (merged.T if along == "column" else merged).reshape(tensors[0].shape)


def nuslerp(base: Array | None, pair: Sequence[Array], weights: Sequence[float], along: str = "tensor") -> Array:
    t = weights[1] / sum(weights) if abs(sum(weights)) >= 1e-6 else 0.5
    origin = np.zeros_like(pair[0]) if base is None else base

    def merge(ends: list[Array]) -> Array:
        angle = math.acos(min(max(float(unit(ends[0]) @ unit(ends[1])), -1.0), 1.0))
        if math.sin(angle) < 1e-6:
            return (1 - t) * ends[0] + t * ends[1]
        return (math.sin((1 - t) * angle) * ends[0] + math.sin(t * angle) * ends[1]) / math.sin(angle)

    return origin + by_vector(merge, [model - origin for model in pair], along)


def multislerp_and_tangent(
    base: Array | None, models: Sequence[Array], weights: Sequence[float], normalize: bool = True
) -> tuple[Array, Array]:
    """Return the merge by the whole procedure on the sphere, and the averaged tangent in it."""
    whole = sum(weights) if normalize else 1.0
    shares = [weight / whole for weight in weights]
    origin = np.zeros_like(models[0]) if base is None else base
    taus = [(model - origin).ravel() for model in models]
    mean = np.add.reduce([share * unit(tau) for share, tau in zip(shares, taus, strict=True)])
    if np.linalg.norm(mean) < 1e-6 * sum(map(abs, shares)) or not np.any(mean):
        straight = np.add.reduce([share * tau for share, tau in zip(shares, taus, strict=True)])
        return origin + straight.reshape(origin.shape), np.zeros_like(mean)
    centre = unit(mean)
    tangents = [unit(tau) - float(unit(tau) @ centre) * centre for tau in taus]
    tangent = np.add.reduce([share * each for share, each in zip(shares, tangents, strict=True)])
    step = float(np.linalg.norm(tangent))
    back = math.cos(step) * centre + math.sin(step) * unit(tangent)
    length = sum(share * float(np.linalg.norm(tau)) for share, tau in zip(shares, taus, strict=True))
    return origin + length * back.reshape(origin.shape), tangent


def karcher(models: Sequence[Array], steps: int = 10, tolerance: float = 1e-5) -> Array:
    vectors = [model.ravel() for model in models]
    units = [unit(vector) for vector in vectors if np.any(vector)]
    length = sum(float(np.linalg.norm(vector)) for vector in vectors) / len(vectors)
    if not units:
        return np.zeros_like(models[0])
    start = np.add.reduce(units) / len(units)
    mean = unit(start) if np.linalg.norm(start) >= 1e-6 else units[0]
    for _ in range(steps):
        tangent = np.zeros_like(mean)
        for each in units:
            near = min(max(float(mean @ each), -1.0), 1.0)
            angle = math.acos(near)
            if angle < math.pi - 1e-4:
                tangent += (angle / math.sin(angle) if angle > 1e-7 else 1.0) * (each - near * mean) / len(units)
        step = float(np.linalg.norm(tangent))
        if step < tolerance:
            break
        mean = unit(math.cos(step) * mean + math.sin(step) * tangent / step)
    return (length * mean).reshape(models[0].shape)


def model_stock(base: Array, models: Sequence[Array], *, filter_wise: bool = False, clamp: bool = True) -> Array:
    count = len(models)

    def merge(taus: list[Array]) -> Array:
        pairs = [(i, j) for i in range(count) for j in range(i)]
        mean = sum(float(unit(taus[i]) @ unit(taus[j])) for i, j in pairs) / len(pairs)
        below = 1 + (count - 1) * mean
        t = count * mean / below if abs(below) > 1e-9 else 0.0
        if clamp:
            t = min(max(t, 0.0), 1.0) if mean > 0 else 0.0
        return t * np.add.reduce(taus) / count

    return base + by_vector(merge, [model - base for model in models], "row" if filter_wise else "tensor")


def softmax(values: Sequence[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def widen(base: Array, models: Sequence[Array], t: float = 1.0, s: float = 1.0, *, embedding: bool = False) -> Array:
    """Return WIDEN; lengths and angles are compared with 60 digits, then as float32 numbers."""
    taus = [model - base for model in models]
    if base.ndim < 2:
        moved = [np.abs(tau).ravel().tolist() for tau in taus]
        means = [sum(each) / max(len(each), 1) for each in moved]
        weights = _scores(
            moved, [[value > t * mean for value in each] for each, mean in zip(moved, means, strict=True)], s
        )
        return base + np.add.reduce([np.reshape(w, base.shape) * tau for w, tau in zip(weights, taus, strict=True)])
    matrices = [array.reshape(len(array), -1) for array in (base, *models)]
    matrices = [matrix.T for matrix in matrices] if embedding else matrices
    size = matrices[0].shape[1]
    kinds: list[list[list[float]]] = []
    for kind in (_longer, _turned):
        ranked: list[list[int]] = []
        for matrix in matrices[1:]:
            far = [kind(matrices[0][:, j].tolist(), matrix[:, j].tolist()) for j in range(size)]
            order = sorted(range(size), key=lambda j: (far[j], j))  # used at once
            ranked.append([order.index(j) for j in range(size)])
        full = [[rank > t * (size - 1) / 2 for rank in ranks] for ranks in ranked]
        kinds.append(_scores([[rank / size for rank in ranks] for ranks in ranked], full, s))
    merged = matrices[0].copy()
    for index, matrix in enumerate(matrices[1:]):
        for j in range(size):
            merged[:, j] += (kinds[0][index][j] + kinds[1][index][j]) / 2 * (matrix[:, j] - matrices[0][:, j])
    return (merged.T if embedding else merged).reshape(base.shape)


def _scores(moved: Sequence[Sequence[float]], full: Sequence[Sequence[bool]], s: float) -> list[list[float]]:
    columns = [softmax(column) for column in zip(*moved, strict=True)]
    return [[s if whole else columns[j][index] for j, whole in enumerate(row)] for index, row in enumerate(full)]


def _length(vector: Sequence[float]) -> Decimal:
    return sum((Decimal(value) ** 2 for value in vector), Decimal(0)).sqrt()


def _coarse(value: Decimal) -> float:
    return float(np.float32(float(value)))


def _longer(origin: Sequence[float], other: Sequence[float]) -> float:
    with localcontext() as context:
        context.prec = 60
        return _coarse(abs(_length(other) - _length(origin)))


def _turned(origin: Sequence[float], other: Sequence[float]) -> float:
    with localcontext() as context:
        context.prec = 60
        below = _length(origin) * _length(other)
        if below == 0:
            return 0.0
        ahead = sum((Decimal(a) * Decimal(b) for a, b in zip(origin, other, strict=True)), Decimal(0))
        return _coarse(1 - ahead / below) if abs(1 - ahead / below) > Decimal("1e-40") else 0.0


def lines(base: Array, model: Array, alpha: float, beta: float, *, layer: int | None, layers: int) -> Array:
    rise = 0.0 if layer is None or layers < 2 else layer / (layers - 1)
    return base + (alpha + beta * rise) * (model - base)


def layer_sources(layers: int, bottom: int, top: int, transition: int) -> list[str]:
    """Return where each layer comes from: L(anguage), T(ask) or A(verage)."""
    sources = ["T"] * layers
    for border, inwards in ((bottom, 1), (layers - 1 - top, -1)):
        if (bottom if inwards == 1 else top) > 0:
            for step in range(transition):
                if 0 <= border + inwards * step < layers:
                    sources[border + inwards * step] = "A"
    return ["L" if layer < bottom or layer >= layers - top else source for layer, source in enumerate(sources)]


def nearswap(base: Array, model: Array, t: float) -> Array:
    merged = np.zeros_like(base)
    for place in np.ndindex(base.shape):
        apart = abs(float(base[place] - model[place]))
        weight = 1.0 if apart == 0 else min(max(t / apart, 0.0), 1.0)
        merged[place] = (1 - weight) * base[place] + weight * model[place]
    return merged


def arcee_fusion(base: Array, model: Array) -> Array:
    columns = base.shape[-1] if base.ndim else 1
    importance: list[float] = []
    for old, new in zip(base.reshape(-1, columns).tolist(), model.reshape(-1, columns).tolist(), strict=True):
        p, q = ([value + 1e-8 for value in softmax(row)] for row in (new, old))
        divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        importance += [abs(b - a) * divergence for a, b in zip(old, new, strict=True)]
    ordered: list[Any] = sorted(importance)
    first, median, third = (ordered[int(q * (len(ordered) - 1))] for q in (0.25, 0.5, 0.75))
    taken = np.array(importance).reshape(base.shape) >= median + 1.5 * (third - first)
    return np.where(taken, model, base)
