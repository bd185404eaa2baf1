"""What may stand in a file of mergekit, as far as its form goes; what it means is decided where it is converted."""

from typing import Annotated, Any

from pydantic import Field

from evomerge.recipe.settings import Settings

Parameters = dict[str, Any]
Model = str | dict[str, Any]
"""`path`, `path@revision`, `path+adapter`, or a map with model and lora."""
Range = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]


class ModelEntry(Settings):
    """One of the models to merge."""

    model: Model
    """Which."""
    parameters: Parameters | None = None
    """Its own parameters."""


class SliceSource(ModelEntry):
    """One of the models that a slice is merged of."""

    layer_range: Range
    """Its first layer, and the one after its last."""


class OutputSlice(Settings):
    """Some layers of the result."""

    sources: list[SliceSource] = Field(min_length=1)
    """What they are merged of."""
    base_model: Model | None = None
    """The base, where it is another than that of the whole."""
    residual_weight: float | None = None
    """Read by no method."""
    parameters: Parameters | None = None
    """Parameters of this slice."""


class TokenizerEntry(Settings):
    """Whose tokens the result has."""

    source: Model = "union"
    """`union`, `base` or a model."""
    tokens: dict[str, Any] | None = None
    """Where the rows of single tokens come from."""
    pad_to_multiple_of: int | None = None
    """Rows are added until their number is a multiple of this."""


class Config(Settings):
    """One document of mergekit."""

    name: str | None = None
    """What other documents call the result of this one."""
    merge_method: str
    """The method."""
    models: list[ModelEntry] | None = None
    """The models that are merged as a whole."""
    slices: list[OutputSlice] | None = None
    """Or the layers of the result, one slice after the other."""
    modules: dict[str, Any] | None = None
    """Or the parts of a model of several."""
    base_model: Model | None = None
    """The base."""
    parameters: Parameters | None = None
    """Parameters of the whole."""
    dtype: str | None = None
    """What is computed in, and written where `out_dtype` is left out."""
    out_dtype: str | None = None
    """What is written."""
    tokenizer_source: Model | None = None
    """`union`, `base` or a model."""
    tokenizer: TokenizerEntry | None = None
    """The same with more to say."""
    chat_template: str | None = None
    """A chat template, its name, or `auto`."""
