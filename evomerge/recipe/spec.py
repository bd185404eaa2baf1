"""How a recipe is written in a job, and how what is written becomes the tree.

The models here are the grammar (and so the JSON schema) of `recipe:`. Parameters of methods are open keys at this
level: which of them exist is known to the methods, and checked where methods are known.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from evomerge.recipe.served_spec import ServedMergeSettings
from evomerge.recipe.settings import Settings
from evomerge.recipe.tree import (
    Dtype,
    Endpoint,
    Ensemble,
    Input,
    Member,
    Merge,
    Per,
    Result,
    Slice,
    Source,
    Stack,
    WeightRecipe,
)
from evomerge.recipe.value_spec import HoleSettings, PlainValue, Point, ValueSettings, number_of, parsed_params


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
    if "stack" in value:
        return "stack"
    return "merge" if "method" in value or "models" in value else "source"


Layers = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]


class PartSettings(Settings):
    """A model, or some of its layers."""

    model: "ModelSettings"
    """Folder (relative to the job's file), hub id, or a merge or stack of its own."""
    revision: str | None = None
    """Commit or tag on a hub."""
    layers: Layers | None = None
    """Take these layers only, `[first, end]`: counted from 0, the end not included."""

    @model_validator(mode="after")
    def _has_layers(self) -> "PartSettings":
        if self.layers is not None and self.layers[0] >= self.layers[1]:
            first, end = self.layers
            raise ValueError(f"layers: [{first}, {end}] are none; the first number is the first layer, counted from 0, "
                             "and the second the one after the last")  # fmt: skip
        return self

    def recipe(self) -> WeightRecipe:
        """Return the recipe of the model, or of its layers."""
        model = _model(self.model)
        if self.revision is not None and isinstance(model, Source):
            model = Source(model.model, self.revision)
        return model if self.layers is None else Stack((Slice(model, self._range()),))

    def _range(self) -> tuple[int, int] | None:
        return None if self.layers is None else (self.layers[0], self.layers[1])


ModelSettings = Annotated[
    Annotated[str, Tag("path")]
    | Annotated[PartSettings, Tag("source")]
    | Annotated["MergeSettings", Tag("merge")]
    | Annotated["StackSettings", Tag("stack")],
    Discriminator(_model_kind),
]


class SliceSettings(PartSettings):
    """Some layers of a model, or all of them."""

    scale: Point = 1.0
    """What these layers add to the stream between layers is multiplied with this; at 0 they change nothing."""

    def slice(self) -> Slice:
        """Return the slice."""
        whole = self.model_copy(update={"layers": None})
        return Slice(whole.recipe(), self._range(), number_of(self.scale))


class TokenizerSettings(Settings):
    """Whose vocabulary the result has, where those of the models differ; rows are matched by their tokens."""

    source: str = Field(min_length=1)
    """`base`, `union` (the base's, with what the others added to theirs), or one of the models."""
    revision: str | None = None
    """Commit or tag of that model on a hub."""

    def tokenizer(self) -> "Source | Literal['base', 'union']":
        """Return the choice."""
        if self.source == "base" or self.source == "union":  # noqa: PLR1714  # a set would lose the literals
            return self.source
        return Source(self.source, self.revision)


class ResultSettings(Settings):
    """How the outermost merge or stack is written."""

    dtype: Dtype | None = None
    """Float type of the result; left out, it is the base's. Naming one (`base` is one) makes a whole checkpoint of a
    merge of adapters, too."""
    tokenizer: TokenizerSettings | None = None
    """Whose vocabulary the result has, for models whose vocabularies differ."""

    def result(self) -> Result:
        """Return what is asked for."""
        return Result(self.dtype, None if self.tokenizer is None else self.tokenizer.tokenizer())


class InputSettings(PartSettings):
    """One model that goes into the merge; every further key is a parameter of the method for this model."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ValueSettings] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]  # pydantic's way to type extra keys


class MergeSettings(ResultSettings):
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
            inputs=tuple(Input(item.recipe(), parsed_params(item.model_extra)) for item in self.models),
            params=parsed_params(self.model_extra),
            per=_per(self.per),
            groups={name: tuple(patterns) for name, patterns in (self.groups or {}).items()},
            seed=self.seed,
            refactor=None if self.refactor is None else self.refactor.rank,
            result=self.result(),
        )


class StackSettings(ResultSettings):
    """Layers of models one upon the other; models of different depth may take part."""

    stack: list[SliceSettings] = Field(min_length=1)
    """The slices, from the first layers to the last."""
    base: ModelSettings | None = None
    """Whose embeddings, norms and head outside the layers the result has; the first slice's model if left out."""
    head: Literal["base", "last"] = "base"
    """`last`: what comes after the layers (final norm, output head) is that of the last slice's model."""

    def tree(self) -> Stack:
        """Return the recipe, with its holes."""
        return Stack(
            slices=tuple(item.slice() for item in self.stack),
            base=None if self.base is None else _model(self.base),
            head=self.head,
            result=self.result(),
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
            members=tuple(Member(Endpoint(item.endpoint), parsed_params(item.model_extra)) for item in self.members),
            params=parsed_params(self.model_extra),
        )


AnyRecipeSettings = MergeSettings | StackSettings | EnsembleSettings | ServedMergeSettings


def recipe_settings(value: Any) -> type[AnyRecipeSettings]:
    """Return the grammar that what stands under `recipe:` belongs to, as far as its keys tell."""
    if not isinstance(value, Mapping):
        return MergeSettings
    if "combine" in value or "members" in value:
        return EnsembleSettings
    models: Any = value.get("models")  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]  # YAML
    if isinstance(models, list) and any(isinstance(item, Mapping) and "adapter" in item for item in models):  # pyright: ignore[reportUnknownVariableType]  # YAML
        return ServedMergeSettings
    return StackSettings if "stack" in value else MergeSettings


_TAGS = {
    MergeSettings: "merge",
    StackSettings: "stack",
    EnsembleSettings: "ensemble",
    ServedMergeSettings: "served",
}

RecipeSettings = Annotated[
    Annotated[MergeSettings, Tag("merge")]
    | Annotated[StackSettings, Tag("stack")]
    | Annotated[EnsembleSettings, Tag("ensemble")]
    | Annotated[ServedMergeSettings, Tag("served")],
    Discriminator(lambda value: _TAGS[recipe_settings(value)]),
]
"""A merge of models, a stack of their layers, an ensemble of their answers, or a merge that a service makes."""


def _model(settings: str | PartSettings | MergeSettings | StackSettings) -> WeightRecipe:
    match settings:
        case str():
            return Source(settings)
        case PartSettings():
            return settings.recipe()
        case MergeSettings() | StackSettings():
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
