import pytest
from pydantic import ValidationError

from evomerge.strategies.search import SearchSettings, StrategySettings


def message(**settings: object) -> str:
    with pytest.raises(ValidationError) as caught:
        SearchSettings.model_validate(settings)
    return str(caught.value)


def test_the_default_is_cma() -> None:
    settings = SearchSettings()
    assert (settings.strategy, settings.trials, settings.seed, settings.first_step) == ("cma", 200, 0, 0.2)


def test_an_unknown_strategy_is_told_the_nearest_or_all() -> None:
    assert "there is no search strategy 'cmaes'; did you mean 'cma'?" in message(strategy="cmaes")
    assert "there are cma, de, grid" in message(strategy="genetic")


@pytest.mark.parametrize(
    ("strategy", "setting"),
    [
        ("random", {"first_step": 0.1}),
        ("random", {"population": 8}),
        ("cma", {"steps": 3}),
        ("de", {"first_step": 0.1}),
    ],
)
def test_a_setting_that_the_strategy_would_ignore_is_refused(strategy: str, setting: dict[str, object]) -> None:
    (name,) = setting
    assert f"{name} is not a setting of strategy '{strategy}'; remove it" in message(strategy=strategy, **setting)


def test_a_default_that_is_written_out_is_no_mistake() -> None:
    written = SearchSettings(strategy="random").model_dump()
    assert SearchSettings.model_validate(written) == SearchSettings(strategy="random")


@pytest.mark.parametrize(
    "setting",
    [
        {"trials": 0},
        {"seed": -1},
        {"seed": 2**32},
        {"first_step": 0.0},
        {"first_step": 1.5},
        {"population": 3},
        {"strategy": "grid", "steps": 1},
        {"sigma": 0.1},
    ],
)
def test_values_that_cannot_be_are_refused(setting: dict[str, object]) -> None:
    message(**setting)


def test_a_strategy_is_not_given_the_budget() -> None:
    settings = SearchSettings(trials=17, first_step=0.1, population=9, seed=3)
    given = settings.without_budget()
    assert type(given) is StrategySettings
    assert given == StrategySettings(first_step=0.1, population=9, seed=3)
    assert not hasattr(given, "trials")


def test_every_setting_is_described() -> None:
    properties = SearchSettings.model_json_schema()["properties"]
    assert all(entry.get("description") for entry in properties.values())
    assert "grid" in properties["strategy"]["examples"]
