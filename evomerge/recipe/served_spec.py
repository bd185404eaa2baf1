"""How a merge by a service is written in a job: adapters by their ids, with weights and densities that may be holes.

    recipe:
      method: ties                     # linear | ties | dare_linear | dare_ties, as far as the service has them
      models:
        - {adapter: math-lora, weight: {low: -1, high: 1}}
        - {adapter: code-lora, weight: {low: -1, high: 1}}
      density: {low: 0.1, high: 1}     # one for all adapters

A service that lets each adapter have a density of its own takes it beside the weight. What cannot be, whatever the
service, is refused here; what one service cannot do is said by its dialect.
"""

from typing import Literal

from pydantic import Field, model_validator

from evomerge.recipe.served import ServedAdapter, ServedInput, ServedMerge
from evomerge.recipe.settings import Settings
from evomerge.recipe.value_spec import HoleSettings, Point, number_of
from evomerge.recipe.values import Value


class ServedInputSettings(Settings):
    """One adapter of the service."""

    adapter: str = Field(min_length=1)
    """Its id at the service; `evomerge check` lists those that the service tells."""
    weight: Point = 1.0
    """What it is multiplied with; below zero it is taken away."""
    density: Point | None = None
    """Share of the entries of this adapter that are kept, where the service lets each have its own."""

    @model_validator(mode="after")
    def _keeps_a_share(self) -> "ServedInputSettings":
        _check_share(self.density)
        return self

    def input(self) -> ServedInput:
        """Return the adapter with its parameters."""
        params: dict[str, Value] = {"weight": number_of(self.weight)}
        if self.density is not None:
            params["density"] = number_of(self.density)
        return ServedInput(ServedAdapter(self.adapter), params)


class ServedMergeSettings(Settings):
    """Adapters that a service holds and merges on request (`backend: {kind: service}`)."""

    method: Literal["linear", "ties", "dare_linear", "dare_ties"] = "linear"
    """How the service merges: `linear` adds the adapters, each times its weight, and never divides by the sum of the
    weights; the others are for services that have them."""
    models: list[ServedInputSettings] = Field(min_length=1)
    """The adapters to combine."""
    density: Point | None = None
    """Share of the entries that `ties` and DARE keep, one for all adapters."""
    majority_sign: Literal["total", "frequency"] | None = None
    """Whose sign wins where adapters disagree (`ties`, `dare_ties`): that of the larger sum, or of more adapters.
    Left out, the service decides."""

    @model_validator(mode="after")
    def _fits_together(self) -> "ServedMergeSettings":
        ids = [item.adapter for item in self.models]
        for index, adapter in enumerate(ids):
            if adapter in ids[:index]:
                raise ValueError(f"the adapter '{adapter}' stands there twice; keep one of them")
        _check_share(self.density)
        if self.method == "linear" and self.density is not None:
            raise ValueError("linear keeps every entry and has no density; remove it, or choose ties or dare_linear")
        if self.method != "linear" and self.density is None:
            raise ValueError(f"{self.method} needs a density: the share of entries that are kept, as in density: 0.5")
        if self.majority_sign is not None and not self.method.endswith("ties"):
            raise ValueError(f"{self.method} elects no signs, and has no majority_sign; remove it")
        return self

    def tree(self) -> ServedMerge:
        """Return the recipe, with its holes."""
        params: dict[str, Value] = {}
        if self.density is not None:
            params["density"] = number_of(self.density)
        if self.majority_sign is not None:
            params["majority_sign"] = self.majority_sign
        return ServedMerge(self.method, tuple(item.input() for item in self.models), params)


def _check_share(density: float | HoleSettings | None) -> None:
    """Raise ValueError for a density that is no share."""
    match density:
        case None:
            return
        case HoleSettings():
            values = [value for value in (density.low, density.high, *(density.choices or ())) if value is not None]
        case _:
            values = [density]
    if not all(isinstance(value, int | float) and 0 <= value <= 1 for value in values):
        raise ValueError("a density is a share, between 0 and 1")
