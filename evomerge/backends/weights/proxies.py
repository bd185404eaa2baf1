"""Models as adapters on their base, for a search that is to be cheap: each one's change extracted once, and kept.

An adapter has a folder of its own, which appears whole or not at all, with what it lacks written beside it; one that is
there and what it was is used again. What engines do not take in an adapter (embeddings, norms, biases, the output head)
is left out, and counted as missing.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evomerge.backends.weights.adapter import Adapter
from evomerge.backends.weights.adapter_folder import write_adapter
from evomerge.backends.weights.checkpoint import HEAD
from evomerge.backends.weights.export import free_bytes, new_folder
from evomerge.backends.weights.extraction import extracted
from evomerge.backends.weights.fingerprint import fingerprint
from evomerge.backends.weights.headers import Stored
from evomerge.backends.weights.loss import Loss
from evomerge.backends.weights.models import is_linear, module_of
from evomerge.backends.weights.plan import MergePlan
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import ConfigError, SourceError
from evomerge.recipe.tree import Input, Merge, Source, WeightRecipe, recipe_id

ABOUT = "extracted.json"
"""What is written beside an adapter: its fingerprint, and what it lacks."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """A model as an adapter, and what of its change to the base is missing there."""

    adapter: Source
    loss: Loss


def factored(model: WeightRecipe, base: Source, rank: int) -> Merge:
    """Return the recipe of a model's change to a base as an adapter, of which nothing is computed here."""
    return Merge("task_arithmetic", (Input(model),), base, refactor=rank)


def carried(store: WeightStore, base: Source) -> Mapping[str, Stored]:
    """Return the weights of a base that a proxy's adapter may change, with their shapes."""
    return {name: tensor for name, tensor in store.outline(base).items() if _is_carried(name, tensor)}


class Proxies:
    """The adapters of one rank on one base, in folders below `folder`. One process at a time may use it."""

    def __init__(self, store: WeightStore, base: Source, rank: int, folder: Path) -> None:
        self._store, self._base, self._rank, self._folder = store, base, rank, folder

    def known(self, model: WeightRecipe) -> Extracted | None:
        """Return a model's adapter if its folder is there, and holds what was written. Nothing is computed."""
        folder = self._place(model)
        try:
            about: Any = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            loss, wanted = Loss(**about["loss"]), str(about["adapter"])
            found = fingerprint(Adapter(folder))
        except (OSError, ValueError, KeyError, TypeError, SourceError):
            return None
        return Extracted(Source(str(folder), None, found), loss) if found == wanted else None

    def extract(self, model: WeightRecipe, running: Callable[[], None] = lambda: None) -> Extracted:
        """Return a model's adapter, computed and written first where it is not known.

        `running` is called before each tensor, and may raise. Raises ConfigError where there is no room to write.
        """
        if (known := self.known(model)) is not None:
            return known
        folder = self._place(model)
        shutil.rmtree(folder, ignore_errors=True)
        for left in folder.parent.glob(f".{folder.name}.*.partial"):
            shutil.rmtree(left, ignore_errors=True)
        whole = Merge("task_arithmetic", (Input(model),), self._base)
        plan = self._store.planned(whole)
        if not isinstance(plan, MergePlan):
            raise ConfigError("only the change of a model to its base can be extracted")
        weights = carried(self._store, self._base)
        tensors = self._store.layout(whole).tensors
        factors, loss = extracted(plan, tensors, weights.__contains__, self._rank, running)
        size = sum(4 * tensor.numel() for low in factors.values() for tensor in (low.a, low.b))
        with new_folder(folder, size, free_bytes) as beside:
            modules = map(module_of, self._store.outline(self._base))
            write_adapter(beside, factors, self._store.name_of(self._base), modules)
            about = {"adapter": fingerprint(Adapter(beside)), "loss": asdict(loss)}
            (beside / ABOUT).write_text(json.dumps(about) + "\n", encoding="utf-8")
        return Extracted(Source(str(folder), None, about["adapter"]), loss)

    def _place(self, model: WeightRecipe) -> Path:
        """Return the folder of a model's adapter, whose name says what it was made of, and at which rank."""
        return self._folder.absolute() / recipe_id(factored(model, self._base, self._rank))


def _is_carried(name: str, tensor: Stored) -> bool:
    return name != HEAD and is_linear(name, tensor)
