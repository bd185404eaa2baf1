"""Whether the items can be answered at all, judged by the baselines before a search spends anything.

A trial that answers fewer items than asked for has failed; where every baseline does, so would every trial.
"""

from collections.abc import Mapping

from evomerge.study.fitness import Scores, fitness
from evomerge.study.prepare import Prepared


def check_coverage(
    prepared: Prepared, scored: Mapping[str, Scores], reasons: Mapping[tuple[str, str], str] | None = None
) -> None:
    """Raise ConfigError when even the baselines, by name, leave more items unanswered than a trial may.

    `reasons` says, by task and item, why there is no answer, as far as it is known.
    """
    wanted = prepared.job.settings.coverage
    found = {name: fitness(scores, prepared.weights) for name, scores in scored.items()}
    covered = {name: one.coverage for name, one in found.items() if one is not None}
    if not covered or max(covered.values()) >= wanted:
        return
    scores = scored[max(covered, key=lambda name: covered[name])]
    task, item = next((task, item) for task, items in scores.items() for item, s in items.items() if s is None)
    items = next(one.items("search") for one in prepared.tasks if one.name == task)
    where = next(one.where for one in items if one.id == item)
    known = (reasons or {}).get((task, item))
    why = f" ({known})" if known else ", which may be too long for the models"
    raise prepared.job.document.error(
        ("objective", "coverage"),
        f"every trial would fail: no baseline answered more than {max(covered.values()):.0%} of the items and "
        f"{wanted:.0%} are asked for; the first without an answer is {where}{why}; take such items out, or lower "
        "coverage",
    )
