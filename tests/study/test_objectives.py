"""Objectives: what a job may name, what their values are, and what is refused before anything is spent."""

from pathlib import Path

import pytest

from evomerge.errors import CandidateError, ConfigError
from evomerge.study.fitness import Cost, Costs, Evaluated, Scores, fitness
from evomerge.study.job import JobSettings, load_job
from evomerge.study.objectives import COST, LATENCY, MEAN, gains, measure, outline

JOB = """\
recipe:
  combine: vote
  members:
    - {{endpoint: one, weight: {{low: -1, high: 1}}}}
    - {{endpoint: two, weight: 1}}
endpoints:
  one: {{url: 'http://127.0.0.1:9/v1', model: m, usd_per_mtok: [0, 0]}}
  two: {{url: 'http://127.0.0.1:9/v1', model: n{two}}}
tasks:
  - {{name: t, data: items.jsonl, prompt: "{{{{question}}}}", score: exact}}
search: {{strategy: {strategy}}}
{objective}
"""
PRICED = ", usd_per_mtok: [1, 2]"


def job(folder: Path, objective: str, *, strategy: str = "de", two: str = PRICED) -> JobSettings:
    path = folder / "job.yaml"
    path.write_text(JOB.format(objective=f"objective: {objective}", strategy=strategy, two=two), encoding="utf-8")
    return load_job(path).settings


def test_a_list_names_several_and_their_order_does_not_matter(tmp_path: Path) -> None:
    written = job(tmp_path, "[{minimize: latency}, {maximize: mean, coverage: 0.9}, {minimize: cost}]")
    assert written.objectives == (MEAN, COST, LATENCY)
    assert written.coverage == 0.9
    assert written.finalists == 24
    other = job(tmp_path, "[{maximize: mean, coverage: 0.9}, {minimize: cost}, {minimize: latency}]")
    assert outline(written.objective) == outline(other.objective)


@pytest.mark.parametrize("objective", ["{maximize: mean, coverage: 0.5}", "[{maximize: mean, coverage: 0.5}]"])
def test_one_objective_is_what_it_was(tmp_path: Path, objective: str) -> None:
    written = job(tmp_path, objective, strategy="cma", two="")
    assert written.objectives == (MEAN,)
    assert written.finalists == 8
    assert outline(written.objective) == {"maximize": "mean", "coverage": 0.5}


@pytest.mark.parametrize(
    ("objective", "sentence"),
    [
        ("[{minimize: cost}]", "objective: a list of objectives has {maximize: mean} in it, once"),
        ("[{maximize: mean}, {maximize: mean}]", "in it, once"),
        ("[{maximize: mean}, {minimize: cost}, {minimize: cost}]", "'cost' stands here twice"),
        ("{minimize: cost}", r"write \[{maximize: mean}, {minimize"),
        ("[]", "at least 1 item"),
        ("[{maximize: mean}, {minimize: length}]", r"objective\[1\]\.minimize: input should be 'cost' or 'latency'"),
        ("{maximize: accuracy}", r"objective\.maximize: input should be 'mean'"),
        ("[{maximize: mean}, {minimize: cost, weight: 2}]", r"objective\[1\]\.weight: unknown key 'weight'"),
        ("cheap", "objective"),
    ],
)
def test_what_is_no_objective_is_named(tmp_path: Path, objective: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        job(tmp_path, objective)


SEVERAL = "[{maximize: mean}, {minimize: cost}]"


def test_a_strategy_of_one_number_and_a_price_nobody_named_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"job\.yaml:\d+: search\.strategy: strategy 'cma' learns from one number"):
        job(tmp_path, SEVERAL, strategy="cma")
    with pytest.raises(ConfigError, match=r"job\.yaml:\d+: endpoints\.two: the objective cost needs the prices"):
        job(tmp_path, SEVERAL, two="")
    assert job(tmp_path, "[{maximize: mean}, {minimize: latency}]", two="").objectives == (MEAN, LATENCY)


def test_a_merge_has_neither_cost_nor_latency(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "recipe: {method: linear, models: [{model: a, weight: {low: 0, high: 1}}, {model: b}]}\n"
        'tasks: [{name: t, data: items.jsonl, prompt: "{{question}}", score: exact}]\n'
        f"search: {{strategy: de}}\nobjective: {SEVERAL}\n"
    )
    with pytest.raises(ConfigError, match="only endpoints have a cost and a latency"):
        load_job(path)


SCORES: Scores = {"a": {"1": 1.0, "2": 0.0, "3": None}, "b": {"1": 1.0}}
COSTS: Costs = {
    "a": {"1": Cost(0.001, 2.0), "2": Cost(0.003, 4.0), "3": Cost(9.0, 99.0)},
    "b": {"1": Cost(0.004, 1.0)},
}
WEIGHTS = {"a": 3.0, "b": 1.0}


def test_costs_are_means_over_answered_items_and_tasks_as_scores_are() -> None:
    scored = fitness(SCORES, WEIGHTS)
    assert scored is not None
    values = measure(Evaluated(SCORES, COSTS), scored, WEIGHTS, (MEAN, COST, LATENCY))
    assert values == {
        "mean": scored.value,
        "cost": pytest.approx(0.75 * 2.0 + 0.25 * 4.0),
        "latency": pytest.approx(0.75 * 3.0 + 0.25 * 1.0),
    }
    assert gains(values, (MEAN, COST, LATENCY)) == (values["mean"], -values["cost"], -values["latency"])


@pytest.mark.parametrize("costs", [{}, {"a": COSTS["a"]}, {"a": {"1": Cost(0.1)}, "b": COSTS["b"]}])
def test_an_answered_item_of_unknown_cost_is_no_cheap_one(costs: Costs) -> None:
    scored = fitness(SCORES, WEIGHTS)
    assert scored is not None
    with pytest.raises(CandidateError, match="the latency of item . of task . is not known"):
        measure(Evaluated(SCORES, costs), scored, WEIGHTS, (MEAN, LATENCY))
