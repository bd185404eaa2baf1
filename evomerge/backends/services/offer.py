"""What a service tells of itself: its base, and the adapters that it holds.

From this come the fingerprints of a recipe's adapters, so that a study notices when another adapter stands under an id.
Pure.
"""

import hashlib
import json
from dataclasses import dataclass

from evomerge.recipe.served import ServedAdapter, ServedMerge, with_fingerprints
from evomerge.strategies.merge.registry import nearest

SHOWN = 12


@dataclass(frozen=True, slots=True)
class Held:
    """An adapter of a service.

    `id` is what people call it, `names` are what they may call it as well; `mark` is all that the service tells of it
    (its path), and `handle` what requests have for it.
    """

    id: str
    mark: str
    handle: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Offer:
    """A service as it tells of itself: `base` is its model, for people, and `mark` all that it tells of that.

    `adapters` are those that it holds, None where it tells no list. `dtype` is what it computes in, and `path` the folder
    of the base, as far as it tells.
    """

    base: str
    mark: str
    adapters: tuple[Held, ...] | None
    dtype: str | None = None
    path: str = ""

    def held(self, adapter: str) -> Held | None:
        """Return the adapter of an id or name, None where there is none; where no list is told, any is taken."""
        if self.adapters is None:
            return Held(adapter, adapter, adapter)
        exact = next((one for one in self.adapters if one.id == adapter), None)
        return exact or next((one for one in self.adapters if adapter in one.names), None)

    def handle(self, adapter: str) -> str:
        """Return what requests have for an adapter that is there. Raises KeyError."""
        return self._there(adapter).handle

    def mark_of(self, adapter: str) -> str:
        """Return what the service tells of an adapter that is there. Raises KeyError."""
        return self._there(adapter).mark

    def _there(self, adapter: str) -> Held:
        held = self.held(adapter)
        if held is None:
            raise KeyError(adapter)
        return held

    @property
    def listed(self) -> str:
        """The adapters in words."""
        if self.adapters is None:
            return "it tells no list of its adapters"
        ids = [one.id for one in self.adapters]
        more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
        return f"it holds {', '.join(ids[:SHOWN])}{more}" if ids else "it holds no adapters"


class UnknownAdapter(Exception):
    """A recipe names an adapter that the service does not hold; `index` is its place, the message a sentence."""

    def __init__(self, index: int, sentence: str) -> None:
        super().__init__(sentence)
        self.index = index


def known(recipe: ServedMerge, offer: Offer) -> ServedMerge:
    """Return the recipe with fingerprints of the service and its adapters put in. Raises UnknownAdapter.

    Two names of one adapter are refused as well: its weights would be added where the service takes one.
    """
    service = _hash(offer.mark)
    adapters: dict[str, ServedAdapter] = {}
    places: dict[str, str] = {}
    for index, adapter in enumerate(recipe.ids):
        held = offer.held(adapter)
        if held is None:
            ids = [one.id for one in offer.adapters or ()]
            raise UnknownAdapter(index, f"the service has no adapter '{adapter}'{nearest(adapter, ids)}; {offer.listed}")
        if held.handle in places:
            raise UnknownAdapter(index, f"'{adapter}' and '{places[held.handle]}' are the same adapter; keep one of them")
        places[held.handle] = adapter
        adapters[adapter] = ServedAdapter(adapter, _hash(offer.mark, held.mark))
    return with_fingerprints(recipe, service, adapters)


def _hash(*marks: str) -> str:
    return hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:16]
