"""Who wins: the best merge and the best single model on the select split.

Pure: contenders and their scores decide. Contenders are compared on the items that all of them answered, so that none
wins by leaving out what is hard.
"""

from collections.abc import Mapping, Sequence

from evomerge.study.fitness import Scores, fitness
from evomerge.study.result import Contender, Kind

MERGES: tuple[Kind, ...] = ("merge", "searched")
SINGLES: tuple[Kind, ...] = ("base", "single")

Scored = tuple[Contender, Scores]


def choose(
    scored: Sequence[Scored], weights: Mapping[str, float], coverage: float
) -> tuple[Contender | None, Contender | None]:
    """Return the best merge and the best single model, each None where there is none; the first of equals wins.

    One that answered less than `coverage` of what the most complete contender answered is left out.
    """
    comparable = on_common_items(scored, weights, coverage)
    values = [(found.value, contender) for contender, s in comparable if (found := fitness(s, weights)) is not None]

    def best(kinds: tuple[Kind, ...]) -> Contender | None:
        among = [(value, contender) for value, contender in values if contender.kind in kinds]
        return max(among, key=lambda pair: pair[0])[1] if among else None

    return best(MERGES), best(SINGLES)


def on_common_items(scored: Sequence[Scored], weights: Mapping[str, float], coverage: float) -> list[Scored]:
    """Return the contenders that answered enough, with their scores of the items that all of these answered."""
    covered = [0.0 if (found := fitness(scores, weights)) is None else found.coverage for _, scores in scored]
    enough = coverage * max(covered, default=0.0)
    kept = [pair for pair, share in zip(scored, covered, strict=True) if share and share >= enough]
    return [
        (
            contender,
            {
                task: {
                    item: score
                    for item, score in items.items()
                    if all(other[task][item] is not None for _, other in kept)
                }
                for task, items in scores.items()
            },
        )
        for contender, scores in kept
    ]
