"""The settings of a search, as a job writes them under `search:`.

What a strategy is given (`StrategySettings`) does not hold the budget, so no strategy can depend on it. A setting that
the chosen strategy does not use is an error: it would be ignored in silence.
"""

from typing import Self

from pydantic import Field, field_validator, model_validator

from evomerge.strategies.search.protocol import StrategySettings
from evomerge.strategies.search.registry import find


class SearchSettings(StrategySettings):
    """The search: which strategy, and for how many trials."""

    trials: int = Field(default=200, ge=1)
    """How many recipes are tried."""

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

    def without_budget(self) -> StrategySettings:
        """Return what a strategy may know."""
        return StrategySettings.model_validate(self.model_dump(include=set(StrategySettings.model_fields)))
