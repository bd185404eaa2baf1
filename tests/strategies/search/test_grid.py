import math

import pytest

from evomerge.errors import ConfigError
from evomerge.recipe.holes import Hole
from evomerge.recipe.space import Space, Vector
from evomerge.strategies.search import SearchSettings, Strategy, make_strategy
from evomerge.strategies.search.grid import LARGEST


def grid(space: Space[dict[str, object]], *, suggestions: tuple[Vector, ...] = (), **settings: object) -> Strategy:
    chosen = SearchSettings.model_validate({"strategy": "grid", **settings})
    return make_strategy(chosen, space.genes, space.start, suggestions)


def everything(strategy: Strategy, space: Space[dict[str, object]]) -> list[dict[str, object]]:
    asked = strategy.ask(10_000)
    assert strategy.done
    assert strategy.ask(1) == []
    return [space.decode(proposal.vector) for proposal in asked]


MIXED = Space[dict[str, object]](
    {
        "weight": Hole(low=0.0, high=2.0),
        "density": Hole(low=0.01, high=1.0, log=True),
        "depth": Hole(low=-1, high=2, int=True),
        "method": Hole(choices=("ties", "linear")),
    }
)


def test_every_combination_comes_once() -> None:
    found = everything(grid(MIXED, steps=3), MIXED)
    expected = {
        (w, d, k, m) for w in (0, 1, 2) for d in (0.01, 0.1, 1) for k in (-1, 0, 1, 2) for m in ("ties", "linear")
    }
    assert len(found) == len(expected)
    assert {tuple(point.values()) for point in found} == expected


def test_a_grid_cut_short_is_no_corner_and_the_seed_decides_its_order() -> None:
    orders = [[proposal.vector for proposal in grid(MIXED, seed=seed).ask(40)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert {vector[0] for vector in orders[0]} == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_a_hole_that_does_not_exist_is_not_varied() -> None:
    space = Space[dict[str, object]](
        {
            "method": Hole(choices=("linear", "ties", "dare"), name="method"),
            "density": Hole(low=0.0, high=1.0, name="density", when={"method": ("ties", "dare")}),
            "rescale": Hole(choices=(True, False), when={"density": (1.0,)}),
        }
    )
    found = everything(grid(space, steps=3), space)
    assert len(found) == 1 + 2 * (2 + 2)
    assert len({repr(point) for point in found}) == len(found)
    assert {"method": "linear"} in found


def test_suggestions_come_first_and_are_not_repeated() -> None:
    corner, elsewhere = (0.0, 0.0, 0.125, 0.25), (0.3, 0.3, 0.3, 0.3)
    vectors = [proposal.vector for proposal in grid(MIXED, steps=2, suggestions=(corner, elsewhere)).ask(1000)]
    assert vectors[:2] == [corner, elsewhere]
    assert len(vectors) == len(set(vectors)) == 2 * 2 * 4 * 2 + 1


def test_a_grid_that_no_budget_could_finish_is_refused_with_its_size() -> None:
    space = Space[dict[str, object]]({str(i): Hole(low=0.0, high=1.0) for i in range(20)})
    with pytest.raises(ConfigError, match=rf"{5**20:,} combinations .* more than {LARGEST:,}; lower search\.steps"):
        grid(space)
    one = Space[dict[str, object]]({"seed": Hole(low=0, high=10**12, int=True)})
    with pytest.raises(ConfigError, match="1,000,000,000,001 combinations"):
        grid(one)


def test_the_largest_grid_can_be_made() -> None:
    space = Space[dict[str, object]]({str(i): Hole(low=0.0, high=1.0) for i in range(5)})
    assert math.prod([10] * 5) == LARGEST
    assert len(set(grid(space, steps=10).ask(500))) == 500
