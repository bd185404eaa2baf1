"""One full checkpoint: its configuration and its tensors, with tied weights known as one.

Promises that a tied output head is read as the embedding it stands for. Whether checkpoints fit each other is decided
elsewhere.
"""

from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evomerge.backends.weights.headers import Stored
from evomerge.backends.weights.raw import Raw
from evomerge.backends.weights.tensors import TensorFiles, model_files, read_json
from evomerge.errors import SourceError

if TYPE_CHECKING:
    from torch import Tensor

HEAD = "lm_head.weight"
_HEAD_BIAS = "lm_head.bias"
_EMBEDDINGS = ("*embed_tokens.weight", "*wte.weight", "*embed_in.weight", "*word_embeddings.weight")


class Checkpoint:
    """A folder with config.json and safetensors. Raises SourceError when either is missing, broken or quantised."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read_json(folder / "config.json")
        if self.config.get("quantization_config"):
            raise SourceError(
                f"{folder / 'config.json'}: the model is quantised; give the folder it was quantised from"
            )
        self._files = TensorFiles(model_files(folder))

    @property
    def files(self) -> tuple[Path, ...]:
        """The safetensors files."""
        return self._files.files

    @cached_property
    def stored(self) -> dict[str, Stored]:
        """The tensors by name; a head that is tied to the embedding is not among them, even where it is stored."""
        return {name: tensor for name, tensor in self._files.stored.items() if not (name == HEAD and self.tied)}

    @cached_property
    def tied(self) -> bool:
        """True when the output head is the embedding: the configuration says so, or no head is stored."""
        said = self.config.get("tie_word_embeddings")
        if said is None and isinstance(text := self.config.get("text_config"), dict):
            said = cast(dict[str, Any], text).get("tie_word_embeddings")
        return self._embedding is not None and (bool(said) if said is not None else HEAD not in self._files.stored)

    @cached_property
    def _embedding(self) -> str | None:
        found = [name for name in self._files.stored if any(fnmatchcase(name, pattern) for pattern in _EMBEDDINGS)]
        return found[0] if len(found) == 1 else None

    def find(self, name: str) -> Stored | None:
        """Return a tensor's place, that of the embedding for a tied head, or None."""
        if name == HEAD and self.tied and self._embedding is not None:
            return self._files.stored[self._embedding]
        return self.stored.get(name)

    @cached_property
    def vocabulary_rows(self) -> int:
        """How many rows the embedding has. Raises SourceError where names do not tell which tensor that is."""
        if self._embedding is None:
            raise SourceError(
                f"{self.folder}: the names of its tensors do not tell which is the embedding, so its rows cannot be "
                "fitted to another vocabulary"
            )
        return self._files.stored[self._embedding].shape[0]

    @cached_property
    def vocabulary_tensors(self) -> frozenset[str]:
        """The tensors that have a row for every token: the embedding and the output head, with its bias."""
        names = (self._embedding, HEAD, _HEAD_BIAS)
        found = {name: self.find(name) for name in names if name is not None}
        return frozenset(name for name, at in found.items() if at is not None and at.shape[0] == self.vocabulary_rows)

    def raw(self, name: str) -> Raw:
        """Return a tensor as it is stored: a view of the file."""
        return self._files.raw(self._real(name))

    def read(self, name: str) -> "Tensor":
        """Return a tensor as stored: a view of the file, not to be written to."""
        return self.raw(name).tensor()

    def float32(self, name: str) -> "Tensor":
        """Return a float32 copy of a tensor."""
        import torch

        return self.raw(name).tensor().to(torch.float32, copy=True)

    def check_tie(self) -> None:
        """Raise SourceError when the configuration ties the head to an embedding that it differs from."""
        if not self.tied or self._embedding is None or HEAD not in self._files.stored:
            return
        head, embedding = self._files.raw(HEAD).elements, self._files.raw(self._embedding).elements
        if head.shape != embedding.shape or not bool((head == embedding).all()):
            raise SourceError(
                f"{self.folder / 'config.json'} says tie_word_embeddings, and {HEAD} differs from "
                f"{self._embedding}; set tie_word_embeddings to false"
            )

    def _real(self, name: str) -> str:
        return self._embedding if name == HEAD and self.tied and self._embedding is not None else name
