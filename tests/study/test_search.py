"""Searching with a fitness function of one's own."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import CandidateError, ConfigError, StudyChanged, StudyLocked
from evomerge.recipe.holes import Hole
from evomerge.recipe.space import Space
from evomerge.recipe.tree import Input, Merge, Recipe, Source
from evomerge.study.lock import locked
from evomerge.study.search import search

SPACE: Space[Any] = Space({"x": Hole(-1, 1), "y": [Hole(-1, 1)]})


def bowl(point: dict[str, Any]) -> float:
    return -((point["x"] - 0.3) ** 2) - (point["y"][0] + 0.2) ** 2


def test_a_search_finds_the_top_of_a_hill() -> None:
    found = search(SPACE, bowl, trials=150, seed=1)
    assert found.best.fitness is not None
    assert found.best.fitness.value > -1e-3
    assert found.best.recipe["x"] == pytest.approx(0.3, abs=0.05)
    assert bowl(found.finalists[0]) > -1e-3


def test_a_space_of_recipes_gives_recipes() -> None:
    template = Merge("linear", (Input(Source("a"), {"weight": Hole(0, 1)}), Input(Source("b"))))

    def fitness(recipe: Recipe) -> float:
        assert isinstance(recipe, Merge)
        weight = recipe.inputs[0].params["weight"]
        assert isinstance(weight, float)
        return -abs(weight - 0.25)

    found = search(Space[Recipe](template), fitness, strategy="grid")
    assert found.best.recipe == Merge("linear", (Input(Source("a"), {"weight": 0.25}), Input(Source("b"))))
    assert len(found.trials) == 5


def test_an_asynchronous_fitness_is_awaited() -> None:
    async def fitness(point: dict[str, Any]) -> float:
        await asyncio.sleep(0)
        return bowl(point)

    assert search(SPACE, fitness, trials=30, seed=2).trials == search(SPACE, bowl, trials=30, seed=2).trials


def test_with_a_folder_the_search_goes_on_and_asks_no_point_twice(tmp_path: Path) -> None:
    asked: list[float] = []

    def fitness(point: dict[str, Any]) -> float:
        asked.append(point["x"])
        return bowl(point)

    search(SPACE, fitness, trials=10, seed=3, folder=tmp_path)
    whole = search(SPACE, fitness, trials=25, seed=3, folder=tmp_path)
    assert len(asked) == 25
    assert whole.trials == search(SPACE, bowl, trials=25, seed=3).trials


def test_a_fitness_that_raises_leaves_a_search_that_goes_on(tmp_path: Path) -> None:
    calls = 0

    def fitness(point: dict[str, Any]) -> float:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise RuntimeError("the power is out")
        return bowl(point)

    with pytest.raises(RuntimeError, match="power"):
        search(SPACE, fitness, trials=12, seed=3, folder=tmp_path)
    assert (
        search(SPACE, fitness, trials=12, seed=3, folder=tmp_path).trials
        == search(SPACE, bowl, trials=12, seed=3).trials
    )
    assert calls == 13


def test_points_that_cannot_be_are_failed_trials() -> None:
    def fitness(point: dict[str, Any]) -> float:
        if point["x"] < 0:
            raise CandidateError("x is negative")
        return bowl(point)

    found = search(SPACE, fitness, trials=40, seed=4)
    assert {trial.error for trial in found.trials} == {None, "x is negative"}
    with pytest.raises(CandidateError, match="all 3 trials failed"):
        search(Space({"x": Hole(-2, -1)}), fitness, trials=3)


@pytest.mark.parametrize(
    ("space", "settings", "named"),
    [
        (Space({"x": Hole(-1, 2), "y": [Hole(-1, 1)]}), {}, "space"),
        (Space({"x": Hole(-1, 1), "y": [Hole(-1, 1)], "z": 3}), {}, "space"),
        (SPACE, {"seed": 2}, "search"),
    ],
)
def test_a_folder_of_another_search_is_refused(
    space: Space[Any], settings: dict[str, Any], named: str, tmp_path: Path
) -> None:
    search(SPACE, bowl, trials=3, folder=tmp_path)
    with pytest.raises(StudyChanged, match=f"{named} changed .* name another folder"):
        search(space, bowl, trials=3, folder=tmp_path, **settings)
    assert len(search(SPACE, bowl, trials=4, folder=tmp_path).trials) == 4


def test_two_searches_in_one_folder_are_refused(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(StudyLocked):
        search(SPACE, bowl, trials=3, folder=tmp_path)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"trails": 3}, "search(): trails: unknown key 'trails'; did you mean 'trials'?"),
        ({"trials": "3"}, "search(): trials: "),
        ({"strategy": "cmaa"}, "did you mean 'cma'?"),
        ({"strategy": "random", "first_step": 0.3}, "first_step"),
    ],
)
def test_wrong_settings_get_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        search(SPACE, bowl, **settings)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), "much", None])
def test_a_fitness_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=f"is '?{value}"):
        search(SPACE, lambda _: value, trials=3)


def test_a_tree_may_hold_recipes_and_nothing_that_has_no_name() -> None:
    merge = Merge("linear", (Input(Source("a"), {"weight": Hole(0, 1)}), Input(Source("b"))))
    space: Space[Any] = Space({"merge": merge, "steps": Hole(1, 3, int=True)})
    found = search(space, lambda point: point["steps"], trials=9)
    assert isinstance(found.best.recipe["merge"], Merge)
    assert len({trial.recipe_id for trial in found.trials}) > 3
    with pytest.raises(ConfigError, match="a space cannot hold"):
        search(Space({"x": Hole(0, 1), "place": Path("a")}), lambda _: 0, trials=1)


def test_a_search_can_be_made_where_a_loop_runs_as_in_a_notebook(tmp_path: Path) -> None:
    async def cell() -> int:
        return len(search(SPACE, bowl, trials=3, folder=tmp_path).trials)

    assert asyncio.run(cell()) == 3
