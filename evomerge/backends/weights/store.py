"""The store of one study's models: it opens folders once, and says what a recipe becomes and what its tensors are.

Files are memory-mapped and read a tensor at a time; a merge is computed in float32 and handed out tensor by tensor, so
memory holds one tensor of each model, never a whole merge. What is scored and what is exported both come from
`tensors` and `low_rank`. Nothing is written here.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.backends.weights.artifact import Artifact, LowRank
from evomerge.recipe.groups import Layout
from evomerge.recipe.tree import Recipe, Source

if TYPE_CHECKING:
    from torch import Tensor


class WeightStore:
    """Model folders and adapters, opened when they are first needed and kept open."""

    def resolve(self, recipe: Recipe, root: Path) -> Recipe:
        """Return the recipe with every source found and read: its path absolute (or a hub id), its fingerprint filled in.

        Relative paths count from `root`. An adapter that stands alone becomes a merge with the base that its own
        configuration names. Raises SourceError for a source that is missing or that cannot be used.
        """
        raise NotImplementedError

    def folder(self, source: Source) -> Path:
        """Return the folder of a resolved source. Raises SourceError when it cannot be reached."""
        raise NotImplementedError

    def check(self, recipe: Recipe) -> None:
        """Compare all that headers and configurations tell; holes may be open. Raises SourceError or ConfigError."""
        raise NotImplementedError

    def check_values(self, recipe: Recipe) -> None:
        """Read every tensor of every source. Raises SourceError for the first that holds a NaN or an infinity."""
        raise NotImplementedError

    def layout(self, recipe: Recipe) -> Layout:
        """Return the tensors that a merge touches: those that its adapters change, or else all that hold floats.

        Tied weights count once. The same for every filling of a recipe's holes.
        """
        raise NotImplementedError

    def artifact(self, recipe: Recipe) -> Artifact:
        """Return what a recipe without holes becomes. Nothing is computed."""
        raise NotImplementedError

    def tensors(self, recipe: Recipe) -> Iterator[tuple[str, "Tensor"]]:
        """Yield the names and tensors of the recipe's checkpoint, each in the base's dtype; tied weights once.

        For a recipe that becomes an adapter, this is the base with `low_rank` added.
        """
        raise NotImplementedError

    def low_rank(self, recipe: Recipe) -> Mapping[str, LowRank]:
        """Return the factors of a recipe that becomes an adapter, by module name (`model.layers.0.self_attn.q_proj`)."""
        raise NotImplementedError

    def memory(self, recipe: Recipe) -> int:
        """Return the bytes that computing the recipe takes at its peak, without what it becomes and without mapped files."""
        raise NotImplementedError
