"""Searching with a fitness function of one's own, from Python.

The same loop, strategies and journal as a job's, over any space: of recipes, or of any tree of maps and lists with
holes.
"""

import asyncio
import hashlib
import inspect
import json
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from evomerge.errors import CandidateError, ConfigError, StudyChanged
from evomerge.recipe.reading import Document
from evomerge.recipe.space import Space
from evomerge.recipe.served import ServedMerge
from evomerge.recipe.tree import Endpoint, Ensemble, Merge, Source, recipe_id
from evomerge.strategies.search.make import make_strategy
from evomerge.strategies.search.settings import SearchSettings
from evomerge.study.evaluate import Work
from evomerge.study.fitness import Evaluated
from evomerge.study.journal import ItemScore, Journal
from evomerge.study.limits import Limits
from evomerge.study.lock import locked
from evomerge.study.loop import Search, Trial

T = TypeVar("T")
FITNESS = "fitness"


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """What a search found: the best trial, what the strategy itself believes best, and all trials in their order."""

    best: Trial[T]
    finalists: tuple[T, ...]
    trials: tuple[Trial[T], ...]


@dataclass
class _FunctionEvaluator(Generic[T]):
    fitness: Callable[[T], float | Awaitable[float]]
    journal: Journal

    async def evaluate(self, work: Work[T]) -> Evaluated:
        kept = self.journal.scores(work.recipe_id, FITNESS, work.split)
        if not kept:
            value = self.fitness(work.recipe)
            value = await value if inspect.isawaitable(value) else value
            try:
                number = float(value)
            except (TypeError, ValueError):
                raise ConfigError(
                    f"the fitness of {work.recipe!r} is {value!r}; return a number, or raise CandidateError"
                ) from None
            if not math.isfinite(number):
                raise ConfigError(
                    f"the fitness of {work.recipe!r} is {number}; raise CandidateError for what cannot be"
                )
            kept = {FITNESS: ItemScore(FITNESS, number)}
            self.journal.put_scores(work.recipe_id, FITNESS, work.split, kept.values())
        return Evaluated({FITNESS: {FITNESS: kept[FITNESS].score}})


def search(
    space: Space[T],
    fitness: Callable[[T], float | Awaitable[float]],
    *,
    folder: str | Path | None = None,
    **settings: Any,
) -> Found[T]:
    """Maximise `fitness` over `space` and return what was found.

    `fitness` gets what the space decodes to (a recipe, or the filled-in tree) and returns a number; it may be async. It
    may raise CandidateError for a point that cannot be. `settings` are those of `search:` in a job (strategy, trials,
    seed, ...). With a `folder` the search is journalled there: the same call goes on where it was stopped, and asks no
    point twice; more `trials` may be given. Another fitness needs another folder: what `fitness` computes cannot be
    compared with what it was. Raises ConfigError for wrong settings and for a fitness that is no number, CandidateError
    when every point failed, StudyLocked when another process searches in that folder, and StudyChanged when the folder
    is of another space, strategy or seed.
    """
    chosen = Document(settings, "search()", {}).parse(SearchSettings)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _in_folder(space, fitness, folder, chosen)
    with ThreadPoolExecutor(1) as thread:  # in a notebook, whose own loop waits for this call
        return thread.submit(_in_folder, space, fitness, folder, chosen).result()


def _in_folder(
    space: Space[T],
    fitness: Callable[[T], float | Awaitable[float]],
    folder: str | Path | None,
    settings: SearchSettings,
) -> Found[T]:
    if folder is None:
        with closing(Journal(None)) as journal:
            return asyncio.run(_search(space, fitness, journal, settings))
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with locked(place), closing(Journal(place / "journal.db")) as journal:
        identity = {"space": _outline(space), "search": settings.without_budget().model_dump(mode="json")}
        _identify(journal, place, identity)
        return asyncio.run(_search(space, fitness, journal, settings))


def _identify(journal: Journal, folder: Path, identity: dict[str, Any]) -> None:
    """Write down what may not change while a search goes on. Raises StudyChanged where it did."""
    before = journal.fact("identity")
    if before is not None and before != json.loads(json.dumps(identity)):
        changed = sorted(key for key in {*before, *identity} if before.get(key) != identity.get(key))
        raise StudyChanged(
            f"{folder}: {' and '.join(changed)} changed since the search in this folder began, so its trials no longer "
            "count; undo the change, or name another folder"
        )
    journal.set_fact("identity", identity)


def _outline(space: Space[Any]) -> list[Any]:
    """Return the holes of a space, and the id of what stands around them."""
    return [[gene.name, gene.hole.to_plain()] for gene in space.genes] + [identify(space.decode(space.start))]


async def _search(
    space: Space[T], fitness: Callable[[T], float | Awaitable[float]], journal: Journal, settings: SearchSettings
) -> Found[T]:
    strategy = make_strategy(settings, space.genes, space.start)
    run = Search(
        space=space,
        strategy=strategy,
        evaluator=_FunctionEvaluator(fitness, journal),
        journal=journal,
        limits=Limits(trials=settings.trials),
        weights={FITNESS: 1.0},
        identify=identify,
    )
    await run.run()
    scored = [trial for trial in run.trials if trial.fitness is not None]
    if not scored:
        raise CandidateError(f"all {len(run.trials)} trials failed; the first said: {run.trials[0].error}")
    best = max(scored, key=lambda trial: (cast(Any, trial.fitness).value, -trial.number))
    return Found(best, tuple(space.decode(vector) for vector in strategy.finalists()), tuple(run.trials))


def identify(value: Any) -> str:
    """Return the id of what a space decodes to: a recipe's own, or a hash of its JSON with the ids of its recipes.

    Raises ConfigError for what has no JSON.
    """
    if isinstance(value, Merge | Source | Ensemble | Endpoint | ServedMerge):
        return recipe_id(value)
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=_recipe_in_json).encode()).hexdigest()[:16]


def _recipe_in_json(value: Any) -> dict[str, str]:
    if isinstance(value, Merge | Source | Ensemble | Endpoint | ServedMerge):
        return {"recipe": recipe_id(value)}
    raise ConfigError(f"a space cannot hold {value!r}; use numbers, words, maps, lists, recipes and holes")
