"""Models of different vocabularies brought to one: every row of an embedding or output head belongs to a token.

Rows are matched by the strings of their tokens. A row of a token that a model lacks is, for that model, the row of the
first model that has it, the base before the others; so merging leaves such a token as those have it who know it. Rows
beyond the tokens (padding) are those of the model whose tokenizer the result has. Nothing is matched by likeness.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evomerge.backends.weights.checkpoint import Checkpoint
from evomerge.backends.weights.headers import Stored
from evomerge.backends.weights.raw import Raw
from evomerge.backends.weights.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Target:
    """The vocabulary of the result: its tokens, how many rows its embedding has, and where its tokenizer is.

    `owner` is the model whose tokenizer it is, or whose was added to; its padding rows and its special tokens count.
    """

    tokens: Vocabulary
    rows: int
    folder: Path
    owner: Checkpoint


class Remapped(Checkpoint):
    """A checkpoint whose embedding and output head have the rows of another vocabulary."""

    def __init__(
        self, model: Checkpoint, target: Target, own: "Rows", donors: "Sequence[tuple[Checkpoint, Rows]]"
    ) -> None:
        """Take over an open model. `own` says which of its rows each row is (-1: none); `donors` say it for others."""
        self.folder = model.folder
        self.config = with_vocabulary(model.config, target.rows, target.owner.config)
        self._inner, self._own, self._donors, self._rows = model, own, donors, target.rows
        self._files = model._files

    @cached_property
    def stored(self) -> dict[str, Stored]:
        """The tensors by name, with the rows of the result's vocabulary."""
        return {name: self._with_rows(name, stored) for name, stored in self._inner.stored.items()}

    def find(self, name: str) -> Stored | None:
        """Return a tensor's dtype and shape, those of the embedding for a tied head, or None."""
        found = self._inner.find(name)
        return None if found is None else self._with_rows(name, found)

    def raw(self, name: str) -> Raw:
        """Return a tensor: as it is stored, or row by row; in float32 where rows of another type are among them."""
        import numpy as np

        there = self._inner.raw(name)
        if name not in self._inner.vocabulary_tensors:
            return there
        sources = [(there, self._own), *((model.raw(name), rows) for model, rows in self._donors)]
        alike = len({raw.dtype for raw, rows in sources if bool((rows >= 0).any())}) == 1
        result = Raw.empty(there.dtype if alike else "F32", (self._rows, *there.shape[1:]))
        table = result.elements.reshape(self._rows, -1)
        table[:] = 0
        for raw, rows in sources:
            wanted = np.flatnonzero(rows >= 0)
            elements = raw.elements if alike else raw.float32().flatten().numpy()
            table[wanted] = elements.reshape(raw.shape[0], -1)[rows[wanted]]
        return result

    def _with_rows(self, name: str, stored: Stored) -> Stored:
        if name not in self._inner.vocabulary_tensors:
            return stored
        return replace(stored, shape=(self._rows, *stored.shape[1:]))


def remapped(models: Mapping[Checkpoint, Vocabulary], target: Target) -> dict[Checkpoint, Checkpoint]:
    """Return the models with the rows of the target's vocabulary; one that has them already as it is.

    `models` are in the order in which they are asked for the rows of tokens that others lack, with their tokens.
    """
    import numpy as np

    tables = {model: _rows(model, tokens, target) for model, tokens in models.items()}
    lacking: Rows = np.full(target.rows, -1, dtype=np.int64)
    first = lacking.copy()
    for index, rows in enumerate(tables.values()):
        first[(first < 0) & (rows >= 0)] = index
    found: dict[Checkpoint, Checkpoint] = {}
    for model, own in tables.items():
        if len(own) == model.vocabulary_rows and bool((own == np.arange(len(own))).all()):
            found[model] = model
            continue
        donors: list[tuple[Checkpoint, Rows]] = []
        for index, (other, rows) in enumerate(tables.items()):
            taken = np.where((own < 0) & (first == index), rows, -1)
            if bool((taken >= 0).any()):
                donors.append((other, taken))
        found[model] = Remapped(model, target, own, donors)
    return found


def _rows(model: Checkpoint, tokens: Vocabulary, target: Target) -> "Rows":
    """Return which row of a model each row of the target is, -1 where it has none."""
    import numpy as np

    count = model.vocabulary_rows
    rows: Rows = np.full(target.rows, -1, dtype=np.int64)
    if model is target.owner:
        padding = min(count, target.rows)
        rows[:padding] = np.arange(padding)
    for token, number in target.tokens.items():
        own = tokens.get(token, -1)
        if number < target.rows:
            rows[number] = own if own < count else -1
    return rows


def with_vocabulary(config: Mapping[str, Any], rows: int, owner: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with that many tokens, its special tokens numbered as in the owner's configuration."""
    inner, theirs = config.get("text_config"), owner.get("text_config")
    changed = {**config, **_numbers_of_tokens(owner)}
    if isinstance(inner, dict) and isinstance(theirs, dict):
        text = with_vocabulary(cast(dict[str, Any], inner), rows, cast(dict[str, Any], theirs))
        changed["text_config"] = text
    if "vocab_size" in config:
        changed["vocab_size"] = rows
    return changed


def _numbers_of_tokens(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key.endswith(("_token_id", "_token_ids", "_token_index"))}
