"""How a recipe is written in a job, and how what is written becomes the tree.

The models here are the grammar (and so the JSON schema) of `recipe:`. Parameters of methods are open keys at this
level: which of them exist is known to the methods, and checked where methods are known.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from evomerge.recipe.holes import Hole, Scalar
from evomerge.recipe.settings import Settings
from evomerge.recipe.tree import Endpoint, Ensemble, Input, Member, Merge, Per, Source, WeightRecipe
from evomerge.recipe.values import ByGroup, Gradient, Value

HOLE_KEYS = frozenset({"low", "high", "choices", "log", "int", "name", "when", "start"})

Choice = bool | int | float | str


class HoleSettings(Settings):
    """A range or a list of choices in place of a value: a gene of the search."""

    low: float | None = None
    """Smallest value, included."""
    high: float | None = None
    """Largest value, included."""
    log: bool = False
    """Move evenly in the logarithm of the value; for scales such as 0.01 to 10."""
    int: bool = False
    """Whole numbers only."""
    choices: list[Choice] | None = None
    """The values to choose among, instead of low and high."""
    name: str | None = None
    """Holes of one name are one gene."""
    when: dict[str, Choice | list[Choice]] | None = None
    """The hole exists only when the hole named here has this value, or one of these."""
    start: Choice | None = None
    """Where the search begins; the middle of the range if left out."""

    @model_validator(mode="after")
    def _is_a_range(self) -> "HoleSettings":
        self.hole()
        return self

    def hole(self) -> Hole:
        """Return the hole. Raises ValueError for a range that cannot be."""
        when = {name: tuple(v) if isinstance(v, list) else (v,) for name, v in (self.when or {}).items()}
        return Hole(
            low=self.low, high=self.high, log=self.log, int=self.int, choices=tuple(self.choices or ()),
            name=self.name, when=when, start=self.start,
        )  # fmt: skip


def _value_kind(value: Any) -> str:
    if isinstance(value, list):
        return "gradient"
    if isinstance(value, dict):
        return "hole" if any(key in value for key in ("low", "high", "choices")) else "groups"
    return "scalar"


def _point_kind(value: Any) -> str:
    return "hole" if isinstance(value, Mapping) else "number"


Point = Annotated[Annotated[float, Tag("number")] | Annotated[HoleSettings, Tag("hole")], Discriminator(_point_kind)]
GroupValue = Annotated[
    Annotated[Choice, Tag("scalar")]
    | Annotated[HoleSettings, Tag("hole")]
    | Annotated[list[Point], Field(min_length=1), Tag("gradient")],
    Discriminator(_value_kind),
]
ValueSettings = Annotated[
    Annotated[Choice, Tag("scalar")]
    | Annotated[HoleSettings, Tag("hole")]
    | Annotated[list[Point], Field(min_length=1), Tag("gradient")]
    | Annotated[dict[str, GroupValue], Tag("groups")],
    Discriminator(_value_kind),
]
"""A number (or word), a hole, a list of points over depth, or a map from groups of tensors to any of these."""


PlainValue = Annotated[
    Annotated[Choice, Tag("scalar")] | Annotated[HoleSettings, Tag("hole")],
    Discriminator(lambda value: "hole" if isinstance(value, Mapping) else "scalar"),
]
"""A number (or word), or a hole."""


class PerSettings(Settings):
    """Groups by depth, alone or crossed with named groups."""

    layers: int = Field(ge=1)
    """Into how many parts of equal depth the layers are cut."""
    groups: list[str] | None = None
    """Named groups, each cut into these parts."""


class RefactorSettings(Settings):
    """Turn the result back into an adapter."""

    rank: int = Field(ge=1)
    """Rank of the adapter that the merged change is factored into."""


def _model_kind(value: Any) -> str:
    if not isinstance(value, Mapping):
        return "path"
    return "merge" if "method" in value or "models" in value else "source"


class SourceSettings(Settings):
    """A model in a folder or on a hub."""

    model: str
    """Folder (relative to the job's file), or hub id."""
    revision: str | None = None
    """Commit or tag on a hub."""


ModelSettings = Annotated[
    Annotated[str, Tag("path")] | Annotated[SourceSettings, Tag("source")] | Annotated["MergeSettings", Tag("merge")],
    Discriminator(_model_kind),
]


class InputSettings(Settings):
    """One model that goes into the merge; every further key is a parameter of the method for this model."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ValueSettings] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]  # pydantic's way to type extra keys

    model: ModelSettings
    """Folder (relative to the job's file), hub id, or a merge of its own."""
    revision: str | None = None
    """Commit or tag on a hub."""


class MergeSettings(Settings):
    """How models are combined. Every further key is a parameter of the method (see `evomerge methods`)."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ValueSettings] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]  # pydantic's way to type extra keys

    method: Annotated[
        Annotated[str, Tag("path")] | Annotated[HoleSettings, Tag("hole")],
        Discriminator(lambda value: "hole" if isinstance(value, Mapping) else "path"),
    ]
    """The merge method, or a hole with choices."""
    base: ModelSettings | None = None
    """The model that the others were fine-tuned from."""
    models: list[InputSettings] = Field(min_length=1)
    """The models to combine."""
    per: str | list[str] | PerSettings | None = None
    """Make each hole one gene per group: a list of groups (attention, mlp, norms, embeddings, head, rest, or your own),
    `{layers: 4}`, or `tensor`."""
    groups: dict[str, list[str]] | None = None
    """Groups of your own: a name and the tensor name patterns (with * and ?) that belong to it."""
    seed: int = 0
    """Decides random masks; the same seed gives the same model."""
    refactor: RefactorSettings | None = None
    """Factor the result into an adapter of a given rank."""

    def tree(self) -> Merge:
        """Return the recipe, with its holes."""
        return Merge(
            method=self.method.hole() if isinstance(self.method, HoleSettings) else self.method,
            base=None if self.base is None else _model(self.base),
            inputs=tuple(Input(_input_model(item), _params(item.model_extra)) for item in self.models),
            params=_params(self.model_extra),
            per=_per(self.per),
            groups={name: tuple(patterns) for name, patterns in (self.groups or {}).items()},
            seed=self.seed,
            refactor=None if self.refactor is None else self.refactor.rank,
        )


class MemberSettings(Settings):
    """One model whose answers count; every further key is a parameter of the combiner for this member."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, PlainValue] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]  # pydantic's way to type extra keys

    endpoint: str = Field(min_length=1)
    """Name of one of the job's `endpoints`."""


class EnsembleSettings(Settings):
    """How answers are combined. Every further key is a parameter of the combiner (see `evomerge methods`)."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, PlainValue] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]  # pydantic's way to type extra keys

    combine: Annotated[
        Annotated[str, Tag("name")] | Annotated[HoleSettings, Tag("hole")],
        Discriminator(lambda value: "hole" if isinstance(value, Mapping) else "name"),
    ]
    """The combiner, or a hole with choices."""
    members: list[MemberSettings] = Field(min_length=1)
    """The models that are asked."""

    def tree(self) -> Ensemble:
        """Return the recipe, with its holes."""
        return Ensemble(
            combiner=self.combine.hole() if isinstance(self.combine, HoleSettings) else self.combine,
            members=tuple(Member(Endpoint(item.endpoint), _params(item.model_extra)) for item in self.members),
            params=_params(self.model_extra),
        )


def recipe_settings(value: Any) -> type[MergeSettings] | type[EnsembleSettings]:
    """Return the grammar that what stands under `recipe:` belongs to, as far as its keys tell."""
    return (
        EnsembleSettings if isinstance(value, Mapping) and ("combine" in value or "members" in value) else MergeSettings
    )


RecipeSettings = Annotated[
    Annotated[MergeSettings, Tag("merge")] | Annotated[EnsembleSettings, Tag("ensemble")],
    Discriminator(lambda value: "ensemble" if recipe_settings(value) is EnsembleSettings else "merge"),
]
"""A merge of models, or an ensemble of their answers."""


def _input_model(item: InputSettings) -> WeightRecipe:
    model = _model(item.model)
    if item.revision is not None and isinstance(model, Source):
        return Source(model.model, item.revision)
    return model


def _model(settings: str | SourceSettings | MergeSettings) -> WeightRecipe:
    match settings:
        case str():
            return Source(settings)
        case SourceSettings():
            return Source(settings.model, settings.revision)
        case MergeSettings():
            return settings.tree()


def _per(settings: str | list[str] | PerSettings | None) -> Per:
    match settings:
        case None:
            return Per()
        case "tensor":
            return Per(tensor=True)
        case str():
            return Per(groups=(settings,))
        case list():
            return Per(groups=tuple(settings))
        case PerSettings():
            return Per(groups=tuple(settings.groups or ()), layers=settings.layers)


def _params(extra: Mapping[str, Any] | None) -> dict[str, Value]:
    return {key: _value(value) for key, value in (extra or {}).items()}


def _value(settings: Scalar | HoleSettings | list[float | HoleSettings] | dict[str, Any]) -> Value:
    match settings:
        case HoleSettings():
            return settings.hole()
        case list():
            return Gradient(tuple(p.hole() if isinstance(p, HoleSettings) else p for p in settings))
        case dict():
            return ByGroup({name: _group_value(value) for name, value in settings.items()})
        case _:
            return settings


def _group_value(settings: Any) -> Scalar | Gradient | Hole:
    value = _value(settings)
    if isinstance(value, ByGroup):
        raise TypeError("a group's value is never itself a map of groups")
    return value
