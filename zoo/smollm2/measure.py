"""Measures the adapters: the base, each adapter on each skill, their uniform average, their plain sum, and a merge
whose five signed weights are found by CMA. Prints the tables of README.md in Markdown.

The 700 items of a skill are split by their order: 200 to search by (mean log-probability of the reference answer's
tokens), 200 to choose among the finalists (the same), 300 to test on (exact match of the greedy answer). Merges are
exact sums of the low-rank products. Intervals are 95 %, normal, over items; differences are paired, item by item.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nevergrad as ng
import numpy as np
from convert import DEFAULT_OUT
from items import HERE, SKILLS, Item, read_items
from model import AdapterSum, Chat, greedy_answers, likelihoods, load_base
from torch import nn

NAMES = sorted(SKILLS)
SEARCH, SELECT, TEST = slice(0, 200), slice(200, 400), slice(400, 700)
SEARCH_ITEMS, SELECT_ITEMS, ELSEWHERE_ITEMS = 16, 40, 100  # a skill; ELSEWHERE: an adapter on another's skill
CANDIDATES, STEP, SEED = 60, 0.25, 11

Weights = tuple[float, ...]
UNIFORM: Weights = (1 / len(NAMES),) * len(NAMES)
Scores = Mapping[str, Sequence[float]]  # skill -> one score an item, in the order of the split


@dataclass(frozen=True)
class Subject:
    """What is measured: the base with an adjustable sum of the adapters on it."""

    model: nn.Module
    chat: Chat
    adapters: AdapterSum

    def likelihood(self, weights: Weights, split: slice, count: int) -> float:
        """Mean over the skills of the mean log-probability (nats a token) on the first `count` items of the split."""
        self.adapters.set(weights)
        means: list[float] = []
        for name in NAMES:
            encoded = [self.chat.encode(item) for item in read_items(name)[split][:count]]
            means.append(statistics.fmean(likelihoods(self.model, encoded, self.chat.padding)))
        return statistics.fmean(means)

    def exact(self, weights: Weights, counts: Mapping[str, int]) -> Scores:
        """Exact match (0 or 1) on the first test items of each skill, as many as `counts` says."""
        self.adapters.set(weights)
        return {name: self._exact(read_items(name)[TEST][:count]) for name, count in counts.items()}

    def _exact(self, items: Sequence[Item]) -> list[float]:
        answers = greedy_answers(self.model, self.chat, [self.chat.encode(item) for item in items])
        return [float(answer == item.answer) for answer, item in zip(answers, items, strict=True)]


def search(subject: Subject) -> Weights:
    """Five weights found by CMA from the uniform average on; the finalists are the best candidate and the centre."""
    space = ng.p.Array(init=np.array(UNIFORM))
    space.set_mutation(sigma=STEP)
    space.random_state.seed(SEED)
    optimizer = ng.optimizers.ParametrizedCMA()(space, budget=CANDIDATES)
    found: list[tuple[float, Weights]] = []
    for number in range(CANDIDATES):
        candidate = optimizer.ask()
        weights = tuple(round(float(value), 3) for value in candidate.value)
        fitness = subject.likelihood(weights, SEARCH, SEARCH_ITEMS)
        optimizer.tell(candidate, -fitness)
        found.append((fitness, weights))
        say(f"candidate {number + 1}: {fitness:.3f} {rounded(weights)}, best {max(found)[0]:.3f}")
    best = sorted(found, reverse=True)[: CANDIDATES // 10]
    centre = tuple(round(statistics.fmean(column), 3) for column in zip(*(weights for _, weights in best), strict=True))
    finalists = {"best candidate": best[0][1], "mean of the best tenth": centre}
    fitness = {name: subject.likelihood(weights, SELECT, SELECT_ITEMS) for name, weights in finalists.items()}
    say(f"on the select split: {fitness}")
    return finalists[max(fitness, key=lambda name: fitness[name])]


def interval(scores: Scores) -> tuple[float, float]:
    """Mean over the skills and half the width of its 95 % interval, the skills being strata of equal weight."""
    mean = statistics.fmean(statistics.fmean(values) for values in scores.values())
    variance = sum(statistics.variance(values) / len(values) for values in scores.values())
    return mean, 1.96 * math.sqrt(variance) / len(scores)


def difference(left: Scores, right: Scores) -> Scores:
    """Item by item, on the items that both have."""
    return {name: [a - b for a, b in zip(left[name], right[name], strict=False)] for name in left if name in right}


def signed(scores: Scores) -> str:
    """A paired difference with its interval, in points."""
    mean, half = interval(scores)
    return f"{100 * mean:+.1f} [{100 * (mean - half):+.1f}, {100 * (mean + half):+.1f}]"


def rounded(weights: Weights) -> str:
    """Weights as text, in the order of NAMES."""
    return " ".join(f"{weight:+.3f}" for weight in weights)


def say(line: str) -> None:
    """Progress, with the seconds so far, on standard error."""
    print(f"[{time.monotonic() - STARTED:6.0f} s] {line}", file=sys.stderr, flush=True)


def measure_all(subject: Subject, merge: Weights) -> dict[str, Scores]:
    """Exact match of everything the tables show, by row."""
    everywhere = dict.fromkeys(NAMES, 300)
    plan: dict[str, tuple[Weights, Mapping[str, int]]] = {"base": ((0.0,) * len(NAMES), everywhere)}
    for number, name in enumerate(NAMES):
        alone = tuple(float(other == number) for other in range(len(NAMES)))
        plan[name] = (alone, {skill: 300 if skill == name else ELSEWHERE_ITEMS for skill in NAMES})
    plan["uniform average (1/5 each)"] = (UNIFORM, everywhere)
    plan["plain sum (1 each)"] = ((1.0,) * len(NAMES), everywhere)
    plan["found merge"] = (merge, everywhere)
    results: dict[str, Scores] = {}
    for row, (weights, counts) in plan.items():
        results[row] = subject.exact(weights, counts)
        say(f"{row}: { ({name: round(statistics.fmean(values), 3) for name, values in results[row].items()}) }")
    return results


def table(results: Mapping[str, Scores]) -> str:
    """Exact match in per cent, by row and skill, in Markdown."""
    lines = ["| | " + " | ".join(NAMES) + " | mean |", "|---" * (len(NAMES) + 2) + "|"]
    for row, scores in results.items():
        cells = [f"{100 * statistics.fmean(scores[name]):.1f}" for name in NAMES]
        mean, half = interval(scores)
        lines.append(f"| {row} | " + " | ".join(cells) + f" | {100 * mean:.1f} ± {100 * half:.1f} |")
    return "\n".join(lines)


def comparisons(results: Mapping[str, Scores]) -> str:
    """The paired differences that README.md claims, in Markdown."""
    lines = ["| paired difference, points | items | mean [95 % interval] |", "|---|---|---|"]

    def compare(text: str, left: str, right: str, keep: Callable[[str], bool]) -> None:
        scores = {name: values for name, values in difference(results[left], results[right]).items() if keep(name)}
        lines.append(f"| {text} | {sum(len(values) for values in scores.values())} | {signed(scores)} |")

    for skill in NAMES:
        compare(f"{skill}, its adapter - base", skill, "base", lambda name, skill=skill: name == skill)
    best = max(NAMES, key=lambda name: interval(results[name])[0])
    others = ("base", "uniform average (1/5 each)", "plain sum (1 each)", best)
    for other in others:
        compare(f"mean of the skills, found merge - {other}", "found merge", other, lambda _: True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=DEFAULT_OUT, help="folder from convert.py (default: %(default)s)")
    parser.add_argument("--adapters", type=Path, default=HERE / "adapters", help="folder of the adapters")
    parser.add_argument("--weights", type=float, nargs=len(NAMES), help="measure this merge instead of searching")
    arguments = parser.parse_args()
    model, chat = load_base(arguments.base)
    subject = Subject(model, chat, AdapterSum(model, [arguments.adapters / name for name in NAMES]))
    merge = tuple(arguments.weights) if arguments.weights else search(subject)
    results = measure_all(subject, merge)
    print(f"Found weights ({', '.join(NAMES)}): {rounded(merge)}\n\n{table(results)}\n\n{comparisons(results)}")


STARTED = time.monotonic()

if __name__ == "__main__":
    main()
