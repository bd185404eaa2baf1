"""The settings of a search, as a job writes them under `search:`.

What a strategy is given (`StrategySettings`) does not hold the budget, so no strategy can depend on it. A setting that
the chosen strategy does not use is an error: it would be ignored in silence.
"""

from typing import Self

from pydantic import Field, field_validator, model_validator

from evomerge.recipe.settings import Settings
from evomerge.strategies.search.registry import find

DEFAULT_STRATEGY = "cma"
LARGEST_SEED = 2**32 - 1


class StrategySettings(Settings):
    """Which strategy proposes, and how."""

    strategy: str = Field(default=DEFAULT_STRATEGY, examples=["cma", "de", "pso", "tbpsa", "random", "grid"])
    """How recipes are proposed: `cma`, `de`, `pso`, `tbpsa`, `random`, `grid`, or the name of a plugin's strategy."""

    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    """The same seed and the same scores give the same search."""

    first_step: float = Field(default=0.2, gt=0, le=1)
    """How far the first proposals lie from the start, as a standard deviation in units of each hole's range (`cma`)."""

    population: int | None = Field(default=None, ge=4, le=10_000)
    """Proposals a generation (`cma`, `de`, `pso`, `tbpsa`); without it, as many as the strategy takes by itself."""

    steps: int = Field(default=5, ge=2, le=1000)
    """Values a continuous hole takes in a `grid`, both ends included; whole numbers and choices take all of theirs."""

    @field_validator("strategy")
    @classmethod
    def _known(cls, name: str) -> str:
        return find(name).name

    @model_validator(mode="after")
    def _all_used(self) -> Self:
        chosen = find(self.strategy)
        for name, field in StrategySettings.model_fields.items():
            if name in ("strategy", "seed") or name in chosen.settings or getattr(self, name) == field.default:
                continue
            raise ValueError(
                f"{name} is not a setting of strategy '{self.strategy}'; remove it or choose another strategy"
            )
        return self


class SearchSettings(StrategySettings):
    """The search: which strategy, and for how many trials."""

    trials: int = Field(default=200, ge=1)
    """How many recipes are tried."""

    def without_budget(self) -> StrategySettings:
        """Return what a strategy may know."""
        return StrategySettings.model_validate(self.model_dump(include=set(StrategySettings.model_fields)))
