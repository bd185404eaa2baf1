"""What a study with several objectives delivers: the front on the select split, and the recipe at its knee.

Pure. Merges and ensembles make the front; single models stand beside it, to be compared with. All values are those on
the items that every contender answered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evomerge.errors import CandidateError
from evomerge.study.choose import MERGES, SINGLES, on_common_items
from evomerge.study.fitness import Evaluated, fitness
from evomerge.study.front import knee, non_dominated
from evomerge.study.objectives import Objective, Values, gains, measure
from evomerge.study.result import Contender


@dataclass(frozen=True, slots=True)
class Standing:
    """A contender and the value of each objective that it reached on the select split."""

    contender: Contender
    values: Values


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """The `front`, the best mean first; its `knee`; and the `others` that were compared.

    `searched` has the values of every trial on the search split in their order, None for a failed one.
    """

    objectives: tuple[Objective, ...]
    front: tuple[Standing, ...]
    knee: Standing
    others: tuple[Standing, ...]
    searched: tuple[Values | None, ...] = field(default=(), repr=False)

    def beaten_by(self, standing: Standing) -> Standing | None:
        """Return the first single model that is nowhere worse than a recipe of the front."""
        ours = gains(standing.values, self.objectives)
        for other in self.others:
            theirs = gains(other.values, self.objectives)
            if other.contender.kind in SINGLES and all(x >= y for x, y in zip(theirs, ours, strict=True)):
                return other
        return None

    def to_plain(self) -> dict[str, Any]:
        """Return the trade-off as JSON-ready data, without the recipes."""
        return {
            "objectives": {one.name: {"maximize": one.maximize, "unit": one.unit} for one in self.objectives},
            "front": [_plain(one) | {"knee": one is self.knee} for one in self.front],
            "others": [_plain(one) for one in self.others],
        }

    def to_journal(self) -> list[dict[str, Any]]:
        """Return the front as it is journalled with the winner."""
        return [
            {
                "name": one.contender.name,
                "recipe": one.contender.recipe_id,
                "vector": one.contender.vector,
                "objectives": dict(one.values),
            }
            for one in self.front
        ]


def _plain(standing: Standing) -> dict[str, Any]:
    contender = standing.contender
    return {
        "name": contender.name,
        "kind": contender.kind,
        "recipe_id": contender.recipe_id,
        "trial": contender.trial,
        "select": dict(standing.values),
    }


def tradeoff(
    scored: Sequence[tuple[Contender, Evaluated]],
    weights: Mapping[str, float],
    coverage: float,
    objectives: tuple[Objective, ...],
    searched: Sequence[Values | None] = (),
) -> Tradeoff | None:
    """Return the front that contenders make on the select split; None where no merge or ensemble could be compared.

    One that answered less than `coverage` of what the most complete contender answered, or whose costs are not known,
    is left out.
    """
    costs = {id(contender): found.costs for contender, found in scored}
    common = on_common_items([(contender, found.scores) for contender, found in scored], weights, coverage)
    standings: list[Standing] = []
    for contender, scores in common:
        mean = fitness(scores, weights)
        if mean is None:
            continue
        try:
            values = measure(Evaluated(scores, costs[id(contender)]), mean, weights, objectives)
        except CandidateError:
            continue
        standings.append(Standing(contender, values))
    standings.sort(key=lambda one: gains(one.values, objectives), reverse=True)
    merges = [one for one in standings if one.contender.kind in MERGES]
    if not merges:
        return None
    points = [gains(one.values, objectives) for one in merges]
    front = [merges[index] for index in non_dominated(points)]
    best = front[knee([gains(one.values, objectives) for one in front])]
    others = tuple(one for one in standings if one not in front)
    return Tradeoff(objectives, tuple(front), best, others, tuple(searched))
