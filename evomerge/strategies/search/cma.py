"""CMA-ES: samples around a centre, and moves centre, step and shape towards the better half of each generation.

The default. Its first step is explicit, it learns a diagonal only from 50 genes on (cheaper, and as good with few
trials), it never restarts on a flat fitness (with few items many recipes score alike), and its centre is a finalist:
with noisy scores an average of good samples beats the luckiest one.

It learns from the points it drew, while their clipped copies are evaluated. Measured against clipping or bouncing them
first, this alone lets weights settle at the very ends of their ranges.
"""

import warnings
from collections.abc import Sequence
from typing import Any, cast

from evomerge.recipe.space import Gene, Vector
from evomerge.strategies.search.engine import NevergradSearch, Optimizer, box
from evomerge.strategies.search.ledger import opening
from evomerge.strategies.search.protocol import Strategy, StrategySettings
from evomerge.strategies.search.registry import strategy

DIAGONAL_FROM = 50

# pycma ends a run on any of the tol... and nevergrad then begins anew at the start. All are off but the one that cannot
# be turned off: that a step no longer changes the floating-point numbers. Mirrored samples, pycma's habit with fewer
# than six a generation, must be told in the generation they were drawn for, which results out of order are not.
_OPTIONS = {
    "tolx": 0,
    "tolfun": 0,
    "tolfunhist": 0,
    "tolfunrel": 0,
    "tolstagnation": 0,
    "tolflatfitness": float("inf"),
    "tolfacupx": float("inf"),
    "tolupsigma": float("inf"),
    "tolconditioncov": 0,
    "tolxstagnation": None,
    "CMA_mirrors": 0,
}


class CMA(NevergradSearch):
    """CMA-ES through nevergrad."""

    def __init__(self, settings: StrategySettings, genes: int, start: Vector, first: Sequence[Vector]) -> None:
        from nevergrad.optimization.optimizerlib import ParametrizedCMA

        # nevergrad turns to a package that is not here for one dimension, so a lonely gene gets an idle companion.
        centre = start if genes > 1 else (*start, 0.5)
        configured: Any = ParametrizedCMA(
            scale=settings.first_step,
            popsize=settings.population,
            diagonal=genes >= DIAGONAL_FROM,
            inopts=_OPTIONS,
        )
        super().__init__(configured(box(centre, settings.seed, sigma=1.0, bounded=False)), genes, first, "as the worst")

    def finalists(self) -> list[Vector]:
        """Return the centre of the distribution, once a generation was learnt."""
        centre = distribution_centre(self._optimizer)
        return [] if centre is None else [tuple(min(max(x, 0.0), 1.0) for x in centre[: self._genes])]


def distribution_centre(optimizer: Optimizer) -> list[float] | None:
    """Return the mean of a nevergrad CMA's distribution in our units, unclipped, or None before its first generation.

    nevergrad shows only the best sample, so this reads its private pycma state. Where that is not as it was in
    nevergrad 1.0.12 with pycma 4.5, a RuntimeWarning says so and the best sample is returned instead.
    """
    try:
        state = cast(Any, optimizer)._es
        if state is None or state.countiter == 0:
            return None
        start: list[float] = optimizer.parametrization.value.tolist()
        mean: list[float] = state.result.xfavorite.tolist()
        return [x + offset for x, offset in zip(start, mean, strict=True)]
    except (AttributeError, ValueError) as error:
        warnings.warn(
            f"this version of nevergrad does not show the centre of its CMA ({error}); the best trial stands in for it",
            RuntimeWarning,
            stacklevel=3,
        )
        return optimizer.recommend().value.tolist()


@strategy("cma", settings=("first_step", "population"))
def make_cma(
    settings: StrategySettings, genes: Sequence[Gene], start: Vector, suggestions: Sequence[Vector]
) -> Strategy:
    """Return a CMA-ES."""
    return CMA(settings, len(genes), start, opening(start, suggestions))
