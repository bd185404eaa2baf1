"""How long the strategies take, and how good `cma` is when scores are noisy.

    OMP_NUM_THREADS=1 python -m benchmarks.search.strategies

Prints two tables. The first: milliseconds of processor time of one ask and one tell, for every strategy and 20, 50 and
200 genes. The second: the true accuracy reached on the yes/no benchmark of `quiz.py`, by our `cma` (its centre, and its
luckiest trial), by nevergrad's CMA as it comes (what it recommends), and by random search.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np

from benchmarks.search.quiz import Quiz, luckiest, new_strategy
from evomerge.strategies.search import SearchSettings, strategy_names

GENES = (20, 50, 200)


def milliseconds(name: str, genes: int, trials: int) -> float:
    """Return the mean processor time of an ask and a tell, without the first trials, which load libraries."""
    strategy, quiz = new_strategy(genes, SearchSettings(strategy=name)), Quiz(genes, 200, 0)
    luckiest(strategy, quiz, 100)
    begin = time.process_time()
    luckiest(strategy, quiz, trials)
    searching = time.process_time() - begin
    begin = time.process_time()
    for _ in range(trials):
        quiz.score((0.5,) * genes)
    return 1000 * (searching - (time.process_time() - begin)) / trials


def ours(name: str, genes: int, trials: int, seed: int) -> tuple[float, float]:
    """Return the true accuracy of a strategy's luckiest trial and of its centre, if it has one."""
    strategy, quiz = new_strategy(genes, SearchSettings(strategy=name, seed=seed)), Quiz(genes, 200, seed)
    lucky = luckiest(strategy, quiz, trials)
    return quiz.accuracy(lucky), max((quiz.accuracy(point) for point in strategy.finalists()), default=np.nan)


def theirs(genes: int, trials: int, seed: int) -> float:
    """Return the true accuracy of what nevergrad's CMA recommends, with its defaults."""
    import nevergrad as ng

    box = ng.p.Array(init=np.full(genes, 0.5), lower=0.0, upper=1.0)
    box.random_state = np.random.RandomState(seed)
    optimizer = ng.optimizers.registry["CMA"](parametrization=box, budget=trials, num_workers=1)
    quiz = Quiz(genes, 200, seed)
    for _ in range(trials):
        candidate = optimizer.ask()
        optimizer.tell(candidate, -quiz.score(candidate.value))
    return quiz.accuracy(optimizer.recommend().value)


def spread(measure: Callable[[int], float], seeds: int) -> str:
    """Return the mean over seeds and its standard error."""
    values = [measure(seed) for seed in range(seeds)]
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / seeds**0.5:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300, help="trials timed for each cell of the first table")
    parser.add_argument("--seeds", type=int, default=16, help="searches behind each number of the second table")
    options = parser.parse_args()
    warnings.simplefilter("ignore")

    print(
        "processor milliseconds an ask and a tell\n\n| strategy |", " | ".join(f"{genes} genes" for genes in GENES), "|"
    )
    print("|---|" + "---|" * len(GENES))
    for name in strategy_names():
        if name != "grid":
            cells = [f"{milliseconds(name, genes, options.trials):.2f}" for genes in GENES]
            print(f"| {name} |", " | ".join(cells), "|", flush=True)

    print("\ntrue accuracy, 200 yes/no items a trial, mean and standard error of", options.seeds, "searches\n")
    print("| genes, trials | cma, centre | cma, luckiest | nevergrad's CMA | random, luckiest |\n|---|---|---|---|---|")
    for genes, trials in ((20, 100), (20, 300), (60, 300)):
        columns: list[Callable[[int], float]] = [
            lambda seed, g=genes, t=trials: ours("cma", g, t, seed)[1],
            lambda seed, g=genes, t=trials: ours("cma", g, t, seed)[0],
            lambda seed, g=genes, t=trials: theirs(g, t, seed),
            lambda seed, g=genes, t=trials: ours("random", g, t, seed)[0],
        ]
        row = " | ".join(spread(column, options.seeds) for column in columns)
        print(f"| {genes}, {trials} | {row} |", flush=True)


if __name__ == "__main__":
    main()
