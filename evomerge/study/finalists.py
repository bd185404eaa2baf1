"""Who is compared again after the search, and the decision who of them won.

Finalists are the best searched recipes and what the strategy itself believes best. The decision is journalled before
any test answer is asked for, and a study that is run again must come to the same one.
"""

import json
from collections.abc import Sequence
from typing import Any

from evomerge.errors import StudyBroken
from evomerge.recipe.tree import Recipe, recipe_id
from evomerge.study.front import fronts, representatives
from evomerge.study.journal import Journal
from evomerge.study.loop import Search, Trial
from evomerge.study.objectives import gains
from evomerge.study.result import Contender
from evomerge.study.tradeoff import Tradeoff


def finalists(search: Search[Recipe], count: int) -> list[Contender]:
    """Return the `count` best searched recipes, each once and the earlier of equals first, and the favourites.

    With several objectives they stand for the front of the search, and for what comes next where that has fewer.
    """
    scored = [trial for trial in search.trials if trial.fitness is not None]
    ranked = sorted(scored, key=lambda trial: (-_value(trial), trial.number))
    if len(search.objectives) > 1:
        ranked = _of_fronts(search, scored, count)
    found: dict[str, Contender] = {}
    for trial in ranked:
        if len(found) == count:
            break
        contender = Contender(
            f"trial {trial.number}", "searched", trial.recipe, trial.recipe_id, trial.number, trial.vector
        )
        found.setdefault(trial.recipe_id, contender)
    for number, vector in enumerate(search.strategy.finalists()):
        recipe = search.space.decode(vector)
        name = "centre of the search" if number == 0 else f"favourite {number + 1} of the search"
        found.setdefault(recipe_id(recipe), Contender(name, "searched", recipe, recipe_id(recipe), vector=vector))
    return list(found.values())


def _of_fronts(search: Search[Recipe], scored: Sequence[Trial[Recipe]], count: int) -> list[Trial[Recipe]]:
    once: dict[str, Trial[Recipe]] = {}
    for trial in scored:
        once.setdefault(trial.recipe_id, trial)
    trials, found = list(once.values()), list[Trial[Recipe]]()
    points = [gains(trial.values, search.objectives) for trial in trials]
    for layer in fronts(points, count):
        chosen = representatives([points[index] for index in layer], count - len(found))
        found += [trials[layer[index]] for index in chosen]
    return found


def spread(search: Search[Recipe], standing: Sequence[Contender], count: int) -> list[Contender]:
    """Return at most `count` searched recipes that do not stand yet, spread evenly over the ranks of all of these."""
    taken = {contender.recipe_id for contender in standing}
    others = [one for one in finalists(search, len(search.trials)) if one.trial is not None and one.recipe_id not in taken]
    if len(others) <= count:
        return others
    return [others[round(place * (len(others) - 1) / (count - 1))] for place in range(count)]


def decide(
    journal: Journal,
    winner: Contender,
    single: Contender | None,
    *,
    trials: int,
    finalists: int,
    elapsed: float,
    tradeoff: Tradeoff | None = None,
) -> None:
    """Journal the winner once, and with several objectives the front that it is of.

    Raises StudyBroken where a replay of as many trials and finalists comes to another.
    """
    decision: dict[str, Any] = {
        "winner": {"name": winner.name, "recipe": winner.recipe_id, "vector": winner.vector},
        "best_single": None if single is None else single.name,
        "trials": trials,
        "finalists": finalists,
    }
    if tradeoff is not None:
        decision["front"] = tradeoff.to_journal()
    wanted = json.loads(json.dumps(decision))
    before = [{key: event.get(key) for key in decision} for event in _decisions(journal)]
    asked = ("trials", "finalists")
    if any(all(one[key] == wanted[key] for key in asked) and one != wanted for one in before):
        raise StudyBroken(f"{journal.name}: it names another winner than its scores give")
    if not before or before[-1] != wanted:
        journal.append("decision", None, decision | {"elapsed": round(elapsed, 3)})
        journal.commit()


def looks(journal: Journal) -> int:
    """Return how many different winners of this study the test items have judged."""
    return len({decision["winner"]["recipe"] for decision in _decisions(journal)})


def _decisions(journal: Journal) -> Sequence[Any]:
    return [event.data for event in journal.events() if event.kind == "decision" and "winner" in event.data]


def _value(trial: Trial[Recipe]) -> float:
    return 0.0 if trial.fitness is None else trial.fitness.value
