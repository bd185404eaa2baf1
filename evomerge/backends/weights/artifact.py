"""What a recipe becomes: a checkpoint, or an adapter on a base; known before anything is computed.

Plain data, without torch at import.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.backends.weights.loss import Loss
from evomerge.recipe.tree import Source

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class CheckpointArtifact:
    """A whole model of `size` bytes of tensors.

    Configuration and tokenizer are those of the folder `skeleton`; `config` is there where the configuration differs,
    `tokenizer` where another folder has the tokenizer and what belongs to it. `packs` are the names of the packs that
    were written beside it, each of which turns it into nearly one of the models that were merged.
    """

    skeleton: Path
    size: int
    config: Mapping[str, Any] | None = None
    tokenizer: Path | None = None
    packs: tuple[str, ...] = ()

    @property
    def behaviour(self) -> Path:
        """The folder of the tokenizer, the chat template and the generation configuration."""
        return self.tokenizer or self.skeleton


@dataclass(frozen=True, slots=True)
class AdapterArtifact:
    """A LoRA adapter on `base`, whose folder is `skeleton`: at most `rank` wide, `size` bytes of float32 factors.

    `loss` says what was left out of a change that was factored, once that is known.
    """

    base: Source
    skeleton: Path
    rank: int
    size: int
    loss: Loss | None = None

    @property
    def behaviour(self) -> Path:
        """The folder of the tokenizer and the chat template."""
        return self.skeleton


Artifact = CheckpointArtifact | AdapterArtifact


@dataclass(frozen=True, slots=True)
class LowRank:
    """The change of one weight: float32 `b` (out x rank) times float32 `a` (rank x in), all scales included in `b`."""

    a: "Tensor"
    b: "Tensor"
