"""Which score of a few search items tells best how a recipe does on the test: right or wrong, or the likelihood?

Draws recipes around the start of a job's space, as a search does, scores each on the search items by the tasks' `score`
and by their likelihood, and on the test items by `score`. Prints the rank correlation of the two search scores with the
test score, for several numbers of search items, and what scoring costs in processor time.

    OMP_NUM_THREADS=1 python benchmarks/search_by.py --job configs/quickstart.yaml
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from evomerge.backends.local import LocalBackend
from evomerge.backends.settings import LocalSettings
from evomerge.recipe.tree import Recipe, recipe_id
from evomerge.study.evaluate import TaskEvaluator, Work
from evomerge.study.fitness import Scores
from evomerge.study.job import Job, load_job
from evomerge.study.journal import Journal
from evomerge.study.prepare import Prepared, load_tasks, prepare
from evomerge.tasks.scorers import ScorerSettings
from evomerge.tasks.settings import Split
from evomerge.tasks.task import Task

JOB = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
ITEMS = (5, 10, 25, 50)
STEP = 0.2


def drawn(prepared: Prepared, recipes: int) -> list[Recipe]:
    """Recipes around the start of the space, as far from it as a search's first proposals are."""
    dice = np.random.default_rng(1)
    vectors = np.array(prepared.space.start) + STEP * dice.standard_normal((recipes, len(prepared.space)))
    return [prepared.space.decode(vector.clip(0, 1).tolist()) for vector in vectors]


async def scored(
    backend: LocalBackend, tasks: tuple[Task, ...], recipes: Sequence[Recipe], split: Split
) -> tuple[list[Scores], float]:
    """The scores of every recipe, and the processor seconds that one recipe took."""
    begin = time.process_time()
    with closing(Journal(None)) as journal:
        evaluator = TaskEvaluator(backend, tasks, journal)
        found = [(await evaluator.evaluate(Work(recipe, recipe_id(recipe), split))).scores for recipe in recipes]
    return found, (time.process_time() - begin) / len(recipes)


def means(scores: Sequence[Scores], items: int | None = None) -> list[float]:
    """The mean over tasks of each recipe, on the first items of each task."""
    return [
        float(np.mean([np.mean([score or 0.0 for score in list(task.values())[:items]]) for task in recipe.values()]))
        for recipe in scores
    ]


def rank_correlation(left: Sequence[float], right: Sequence[float]) -> float:
    """Spearman's: the correlation of ranks, where equal values share theirs."""

    def ranks(values: Sequence[float]) -> list[float]:
        return [
            sum(other < value for other in values) + sum(other == value for other in values) / 2 for value in values
        ]

    return float(np.corrcoef(ranks(left), ranks(right))[0, 1])


def tasks_by(job: Job, scorer: ScorerSettings | None) -> tuple[Task, ...]:
    """The job's tasks, searched by a scorer, or by their own score."""
    tasks = [task.model_copy(update={"search_by": scorer}) for task in job.settings.tasks]
    return load_tasks(replace(job, settings=job.settings.model_copy(update={"tasks": tasks})))


async def measure(path: Path, recipes: int) -> None:
    job = load_job(path)
    prepared = prepare(job)
    right = tasks_by(job, None)
    likely = tasks_by(job, ScorerSettings.model_validate("likelihood"))
    probable = tasks_by(job, ScorerSettings.model_validate({"likelihood": {"scale": "probability"}}))
    if not isinstance(job.settings.backend, LocalSettings):
        raise SystemExit("what a recipe costs is measured in this process; leave backend: out of the job")
    backend = LocalBackend(job.settings.backend, prepared.store)
    candidates = drawn(prepared, recipes)
    try:
        await scored(backend, right, candidates[:2], "search")  # loads torch and the model
        by_likelihood, judging = await scored(backend, likely, candidates, "search")
        by_probability, _ = await scored(backend, probable, candidates, "search")
        by_score, answering = await scored(backend, right, candidates, "search")
        tested, _ = await scored(backend, right, candidates, "test")
    finally:
        await backend.close()
    truth = means(tested)
    print(f"{recipes} recipes, test scores from {min(truth):.3f} to {max(truth):.3f}; rank correlation with them\n")
    print("| search items of each task | by score | by log-likelihood | by probability |\n|---|---|---|---|")
    most = max(len(task.items("search")) for task in right)
    for items in [*(items for items in ITEMS if items < most), most]:
        row = [rank_correlation(means(scores, items), truth) for scores in (by_score, by_likelihood, by_probability)]
        print(f"| {items} | " + " | ".join(f"{value:.2f}" for value in row) + " |")
    asked = prepared.items("search")
    print(f"\nprocessor seconds a recipe and {asked} search items: score {answering:.2f}, likelihood {judging:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", type=Path, default=JOB, help="the job whose recipes and tasks are measured")
    parser.add_argument("--recipes", type=int, default=60, help="recipes that are drawn")
    options = parser.parse_args()
    asyncio.run(measure(options.job, options.recipes))


if __name__ == "__main__":
    main()
