"""What a study found, in numbers that can be believed.

Every contender is scored on the same test items, which nothing was chosen by; differences are taken item by item to the
best single model, which (like the winner) was chosen on the select split.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from evomerge.backends.api.spent import Spent
from evomerge.recipe.space import Vector
from evomerge.recipe.tree import Recipe
from evomerge.study.agreement import Agreement
from evomerge.study.fitness import Interval, Scores, paired_interval, score_interval
from evomerge.study.objectives import Values

if TYPE_CHECKING:
    from evomerge.study.tradeoff import Tradeoff

Kind = Literal["base", "single", "merge", "searched"]


@dataclass(frozen=True, slots=True)
class Contender:
    """A recipe that is compared at the end.

    `trial` is the number of the trial it was; `vector` its point of the space. Baselines have neither, a strategy's own
    favourite has only the latter.
    """

    name: str
    kind: Kind
    recipe: Recipe
    recipe_id: str
    trial: int | None = None
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the final table: test score, each task's mean, and the difference to the best single model.

    `values` has what the recipe reached of each objective, where a study has several.
    """

    name: str
    kind: Kind
    score: Interval
    tasks: Mapping[str, float]
    difference: Interval | None
    values: Values = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a study.

    `searched` holds the fitness of each trial on the search split in their order (None for a failed one), `references`
    that of the baselines; `left_out` says why a baseline or finalist is missing; `looks` counts the winners that the
    test items have judged, this one included; `merged` is the folder of the exported winner; `agreement` is
    there for a search by proxy, whose scores `searched` then has; `tradeoff` is there for several objectives, of which
    `searched` has the first; `spent` is what endpoints have cost.
    """

    study: str
    rows: tuple[Row, ...]
    winner: Contender
    best_single: str | None
    searched: tuple[float | None, ...]
    references: Mapping[str, float]
    left_out: Mapping[str, str]
    looks: int
    elapsed: float
    merged: Path
    agreement: Agreement | None = None
    tradeoff: "Tradeoff | None" = None
    spent: Spent | None = None

    @property
    def winning_row(self) -> Row:
        """The winner's line of the table."""
        return next(row for row in self.rows if row.name == self.winner.name)

    @property
    def verdict(self) -> str:
        """Whether the winner is better than the best single model, as far as the test items can tell."""
        again = f" These items have judged {self.looks} winners of this study." if self.looks > 1 else ""
        return self._comparison + self._simpler + again

    @property
    def _simpler(self) -> str:
        """Say where a single model is nowhere worse than the winner, when other things than the score count as well."""
        other = None if self.tradeoff is None else self.tradeoff.beaten_by(self.tradeoff.knee)
        return "" if other is None else f" On the select split {other.contender.name} alone is in no objective worse."

    @property
    def _comparison(self) -> str:
        difference = self.winning_row.difference
        if difference is None or self.best_single is None:
            return f"The winner is {self.winner.name}; there is no single model to compare it with."
        span = f"95 % interval {difference.low:+.3f} to {difference.high:+.3f}"
        by = f"{difference.value:+.3f} on {difference.items} test items, {span}"
        if difference.above_zero:
            return f"The winner beats the best single model ({self.best_single}): {by}."
        if difference.high < 0:
            return f"The search does not pay: the best single model ({self.best_single}) beats the winner: {by}."
        return f"The winner is not clearly better than the best single model ({self.best_single}): {by}."

    def to_plain(self) -> dict[str, Any]:
        """Return the outcome as JSON-ready data, without the recipe."""
        return {
            "study": self.study,
            "winner": {"name": self.winner.name, "recipe_id": self.winner.recipe_id, "trial": self.winner.trial},
            "best_single": self.best_single,
            "verdict": self.verdict,
            "trials": len(self.searched),
            "failed": sum(value is None for value in self.searched),
            "searched": list(self.searched),
            "references": dict(self.references),
            "left_out": dict(self.left_out),
            "seconds": round(self.elapsed, 1),
            "merged": str(self.merged),
            **({} if self.agreement is None else {"proxy": self.agreement.to_plain()}),
            **({} if self.tradeoff is None else {"tradeoff": self.tradeoff.to_plain()}),
            **({} if self.spent is None else {"spent": self.spent.to_plain()}),
            "rows": [_plain_row(row) for row in self.rows],
        }


def rows(
    scored: Sequence[tuple[Contender, Scores]],
    weights: Mapping[str, float],
    best_single: str | None,
    *,
    bounded: bool,
    values: Mapping[str, Values] = MappingProxyType({}),
) -> tuple[Row, ...]:
    """Return the lines of the table for contenders and their test scores; one without answers is left out.

    `values` has by name what contenders reached of several objectives.
    """
    reference = next((scores for contender, scores in scored if contender.name == best_single), None)
    found: list[Row] = []
    for contender, scores in scored:
        interval = score_interval(scores, weights, bounded=bounded)
        if interval is None:
            continue
        difference = None
        if reference is not None and contender.name != best_single:
            difference = paired_interval(scores, reference, weights, bounded=bounded)
        means = {task: _mean(items) for task, items in scores.items()}
        reached = values.get(contender.name, {})
        found.append(Row(contender.name, contender.kind, interval, means, difference, reached))
    return tuple(found)


def _plain_row(row: Row) -> dict[str, Any]:
    plain = asdict(row) | {"tasks": dict(row.tasks), "values": dict(row.values)}
    return plain if row.values else {key: value for key, value in plain.items() if key != "values"}


def _mean(items: Mapping[str, float | None]) -> float:
    values = [score for score in items.values() if score is not None]
    return sum(values) / len(values)
