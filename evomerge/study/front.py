"""Trade-offs: which of many points are not beaten by another, and which of those stand out.

Pure. A point is a tuple of numbers of which more is better. Of equal points the first counts as better than the others,
so that every answer is one, whatever the order of evaluation was.
"""

import math
from collections.abc import Sequence

Point = tuple[float, ...]


def non_dominated(points: Sequence[Point]) -> list[int]:
    """Return the indices of the points that no other beats, ascending.

    Sorted from the best down, a point can be beaten only by an earlier one. Source of the idea: Zhang, Tian, Cheng and
    Jin, IEEE Trans. Evol. Comput. 19 (2015).
    """
    kept: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (tuple(-x for x in points[i]), i)):
        if not any(_no_worse(points[other], points[index]) for other in reversed(kept)):
            kept.append(index)
    return sorted(kept)


def _no_worse(one: Point, other: Point) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True))


def fronts(points: Sequence[Point], enough: int) -> list[list[int]]:
    """Return the indices of the points in layers, until they are `enough`: those that none beats, then those that none
    but these beats, and so on; ascending in each.
    """
    left, found = list(range(len(points))), list[list[int]]()
    while left and sum(map(len, found)) < enough:
        layer = [left[index] for index in non_dominated([points[other] for other in left])]
        found.append(layer)
        taken = set(layer)
        left = [index for index in left if index not in taken]
    return found


def extremes(points: Sequence[Point]) -> list[int]:
    """Return for each coordinate the index of the point that is best in it; of equals the best in the others."""
    return [
        max(range(len(points)), key=lambda i, at=at: (points[i][at], points[i], -i)) for at in range(len(points[0]))
    ]


def knee(points: Sequence[Point]) -> int:
    """Return the index of the point of a front where giving up more of one thing buys least of the others.

    Each coordinate is scaled by its range over the front; the knee is the point farthest beyond the line (plane,
    hyperplane) through the extremes. Of equally far ones it is the best in the first coordinate. Source: Das,
    Structural Optimization 18 (1999). Where extremes coincide, the plane through them is the one nearest to the origin
    (least norm); where it leans so that more of something would count against a point, the plane through the unit points
    is taken instead.
    """
    scaled = _scaled(points)
    normal = _plane([scaled[index] for index in extremes(points)])
    length = math.hypot(*normal) or 1.0
    beyond = [round(sum(a * x for a, x in zip(normal, point, strict=True)) / length, 12) for point in scaled]
    return max(range(len(points)), key=lambda i: (beyond[i], points[i], -i))


def _scaled(points: Sequence[Point]) -> list[Point]:
    """Return the points with each coordinate between 0, the worst of them, and 1, the best; 1 where all are equal."""
    lows = [min(column) for column in zip(*points, strict=True)]
    highs = [max(column) for column in zip(*points, strict=True)]
    spans = list(zip(lows, highs, strict=True))
    return [
        tuple((x - low) / (high - low) if high > low else 1.0 for x, (low, high) in zip(point, spans, strict=True))
        for point in points
    ]


def _plane(extreme: Sequence[Point]) -> list[float]:
    """Return the normal a of the plane a·x = 1 through some points, with no negative part."""
    import numpy as np

    normal: list[float] = np.linalg.lstsq(np.array(extreme), np.ones(len(extreme)), rcond=1e-9)[0].tolist()
    return normal if min(normal) >= -1e-9 else [1.0] * len(normal)  # noise of the solver is no lean


def representatives(points: Sequence[Point], count: int) -> list[int]:
    """Return the indices of at most `count` points of a front that stand for all of it, ascending.

    The knee and the extremes come first, then always the point farthest from those taken, with coordinates scaled by
    their ranges. Source: Gonzalez, Theoretical Computer Science 38 (1985).
    """
    if len(points) <= count:
        return list(range(len(points)))
    scaled = _scaled(points)
    taken = list(dict.fromkeys((knee(points), *extremes(points))))[:count]
    nearest = [min(math.dist(point, scaled[other]) for other in taken) for point in scaled]
    while len(taken) < count:
        new = max(range(len(points)), key=lambda i: (nearest[i], -i))
        taken.append(new)
        nearest = [min(near, math.dist(point, scaled[new])) for near, point in zip(nearest, scaled, strict=True)]
    return sorted(taken)
