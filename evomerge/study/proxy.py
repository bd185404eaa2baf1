"""Searching full fine-tunes by a proxy: each model's change to the base as an adapter of low rank.

Only for weighted sums, whose adapters are the sums of their models'. A proxied recipe is another recipe, with an id of
its own, under which its scores are journalled: no score of a proxy is ever taken for one of the recipe it stands for.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from evomerge.backends.vllm.serving import WIDEST
from evomerge.backends.weights.adapter import Adapter
from evomerge.backends.weights.artifact import AdapterArtifact
from evomerge.backends.weights.checkpoint import HEAD
from evomerge.backends.weights.files import Opened
from evomerge.backends.weights.models import weight_of
from evomerge.backends.weights.proxies import Extracted, Proxies, carried, factored
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import CandidateError, ConfigError
from evomerge.recipe.holes import Hole
from evomerge.recipe.space import Space
from evomerge.recipe.tree import Merge, Recipe, Result, Source, WeightRecipe, as_weights, recipe_id, sources
from evomerge.strategies.merge.registry import get, methods
from evomerge.study.baselines import has_holes
from evomerge.study.evaluate import Evaluator, Work
from evomerge.study.fitness import Evaluated

FOLDER = "proxy"
"""Where in a study's folder the adapters are."""

COMPARED = 8
"""How many trials besides the finalists are scored exactly as well, to see whether the proxy is to be trusted."""


@dataclass(frozen=True)
class Proxy:
    """How recipes are searched: the `models` of which each becomes an adapter of `rank` on `base`, by their names."""

    base: Source
    rank: int
    models: Mapping[str, WeightRecipe]
    share: float
    """Of the base's parameters, the share that adapters may change."""

    def outlined(self, recipe: Recipe) -> WeightRecipe:
        """Return a recipe's proxy with its adapters still to be computed, from which a backend tells how to hold it."""
        parts = {recipe_id(model): factored(model, self.base, self.rank) for model in self.models.values()}
        return _replaced(as_weights(recipe), parts)

    def made(self, recipe: Recipe, adapters: Mapping[str, Extracted]) -> WeightRecipe:
        """Return a recipe's proxy; `adapters` has those of the models, by their names."""
        parts = {recipe_id(model): adapters[name].adapter for name, model in self.models.items()}
        return _replaced(as_weights(recipe), parts)

    def adapters(self, store: WeightStore, folder: Path) -> Proxies:
        """Return the adapters that a study's folder has, or will have."""
        return Proxies(store, self.base, self.rank, folder / FOLDER)

    def known(self, store: WeightStore, folder: Path) -> dict[str, Extracted]:
        """Return the adapters that are in a study's folder, by their models' names. Nothing is computed."""
        adapters = self.adapters(store, folder)
        found = {name: adapters.known(model) for name, model in self.models.items()}
        return {name: one for name, one in found.items() if one is not None}

    @property
    def sentence(self) -> str:
        """How the search goes about it, in words."""
        count = len(self.models)
        return (
            f"trials are scored as sums of {count} adapter{'s' * (count != 1)} of rank {self.rank}, on the linear layers "
            f"({self.share:.1%} of the parameters; the rest stays the base's); all else is scored exactly"
        )


def said_of(name: str, found: Extracted) -> str:
    """Say what the adapter of a model lacks."""
    loss = found.loss
    return (
        f"{name} as an adapter of rank {loss.rank} lacks {loss.total:.1%} of its change to the base ({loss.carried:.1%} "
        f"of the linear layers' change; tensors that no adapter holds are {loss.outside:.1%} of the whole)"
    )


def proxy_of(template: WeightRecipe, space: Space[Recipe], store: WeightStore, rank: int) -> Proxy:
    """Return how the recipes of a space are proxied. Raises ConfigError, as a sentence, for those that cannot be."""
    if not isinstance(template, Merge) or not isinstance(template.base, Source):
        raise ConfigError("only a merge with a model as its base: is searched by adapters on that; leave proxy out")
    if template.result.tokenizer is not None:
        raise ConfigError("models whose vocabularies differ are not searched by adapters; leave proxy out")
    base, names = template.base, dict[str, WeightRecipe]()
    for model in _models(template, base, store):
        if all(recipe_id(model) != recipe_id(known) for known in names.values()):
            name = PurePath(model.model).name if isinstance(model, Source) else f"model {len(names) + 1}"
            names[name if name not in names else f"{name} ({len(names) + 1})"] = model
    if template.refactor is not None or not names:
        raise ConfigError("the recipe's result is an adapter itself, and is searched as one; leave proxy out")
    weights, outline = carried(store, base), store.outline(base)
    share = sum(tensor.elements for tensor in weights.values()) / sum(tensor.elements for tensor in outline.values())
    proxy = Proxy(base, rank, names, share)
    for vector in (space.start, (0.0,) * len(space), (1.0,) * len(space)):
        _check(proxy, space.decode(vector), store)
    return proxy


def _check(proxy: Proxy, recipe: Recipe, store: WeightStore) -> None:
    outlined = proxy.outlined(recipe)
    store.check(outlined)
    try:
        artifact = store.artifact(outlined)
    except CandidateError:  # a point that cannot be, as a search may meet it
        return
    if not isinstance(artifact, AdapterArtifact):
        raise ConfigError(
            "its weights do not always leave the base whole, so a sum of adapters is another model; write normalize: "
            "true, or use task_arithmetic, or leave proxy out"
        )
    if artifact.rank > WIDEST:
        most = WIDEST * proxy.rank // artifact.rank
        raise ConfigError(
            f"the sum of its adapters is {artifact.rank} wide, and vLLM takes {WIDEST} at most; write proxy: {{rank: "
            f"{most}}} or less"
        )


def _models(merge: Merge, base: Source, store: WeightStore) -> Iterator[WeightRecipe]:
    """Yield what a merge combines and is no adapter yet, those of searched inputs in their place. Raises ConfigError."""
    for name in merge.method.choices if isinstance(merge.method, Hole) else (merge.method,):
        if get(str(name)).coefficients is None:
            sums = ", ".join(known for known, method in sorted(methods().items()) if method.coefficients is not None)
            raise ConfigError(
                f"{name} is no weighted sum of models, so no sum of adapters stands for it; use one of {sums}, or leave "
                "proxy out"
            )
    if merge.base != base:
        raise ConfigError("a merge within the recipe has another base, or none; write that of the recipe, or no proxy")
    for item in merge.inputs:
        if _is_adapter(item.recipe, store):
            _check_head(item.recipe, store)
            continue
        if not has_holes(item.recipe):
            yield item.recipe
        elif isinstance(item.recipe, Merge):
            yield from _models(item.recipe, base, store)
        else:
            raise ConfigError("a stack of layers whose scales are searched has no adapter; leave proxy out")


def _check_head(adapter: WeightRecipe, store: WeightStore) -> None:
    changed = [model.folder for source in sources(adapter) if HEAD in _changed(model := store.opened(source))]
    if changed:
        raise ConfigError(f"{changed[0]} changes the output head, which a proxy leaves as it is; leave proxy out")


def _changed(model: Opened) -> set[str]:
    return {weight_of(module) for module in model.modules} if isinstance(model, Adapter) else set()


def _is_adapter(recipe: WeightRecipe, store: WeightStore) -> bool:
    if isinstance(recipe, Source):
        return store.is_adapter(recipe)
    return not has_holes(recipe) and isinstance(store.artifact(recipe), AdapterArtifact)


def _replaced(recipe: WeightRecipe, parts: Mapping[str, WeightRecipe]) -> WeightRecipe:
    """Return a recipe with others in place of its parts, by their ids; it is written as its base is."""
    if not isinstance(recipe, Merge):
        return recipe
    inputs = tuple(
        replace(item, recipe=parts.get(recipe_id(item.recipe)) or _replaced(item.recipe, parts))
        for item in recipe.inputs
    )
    return replace(recipe, inputs=inputs, result=Result())


class ProxyEvaluator:
    """Scores the proxies of recipes, on whatever split; adapters are extracted when the first is needed."""

    def __init__(
        self,
        proxy: Proxy,
        adapters: Proxies,
        evaluator: Evaluator[Recipe],
        tell: Callable[[str], None],
        note: Callable[[Mapping[str, float]], None],
    ) -> None:
        """Score by `evaluator`; `tell` hears what is extracted, `note` which share of its change each model lacks."""
        self._proxy, self._adapters, self._evaluator, self._tell, self._note = proxy, adapters, evaluator, tell, note
        self._found: dict[str, Extracted] = {}
        self._extracting = threading.Lock()
        self._stopped = threading.Event()
        self._noted = False

    async def evaluate(self, work: Work[Recipe]) -> Evaluated:
        """Return the scores of a recipe's proxy, which are journalled under the proxy's own id.

        Raises what the exact evaluator raises, ConfigError where adapters cannot be written.
        """
        recipe = await self.proxied(work.recipe)
        return await self._evaluator.evaluate(Work(recipe, recipe_id(recipe), work.split))

    async def proxied(self, recipe: Recipe) -> WeightRecipe:
        """Return the proxy of a recipe. Adapters are extracted in a thread, which ends early when this is cancelled."""
        loop = asyncio.get_running_loop()
        try:
            found = await asyncio.to_thread(self._extracted, lambda words: loop.call_soon_threadsafe(self._tell, words))
        except asyncio.CancelledError:
            self._stopped.set()
            raise
        if not self._noted:
            self._noted = True
            self._note({name: one.loss.total for name, one in found.items()})
        return self._proxy.made(recipe, found)

    def _extracted(self, tell: Callable[[str], object]) -> Mapping[str, Extracted]:
        with self._extracting:
            for name, model in self._proxy.models.items():
                if name in self._found:
                    continue
                if self._adapters.known(model) is None:
                    tell(f"extracting {name} as an adapter of rank {self._proxy.rank}…")
                self._found[name] = self._adapters.extract(model, self._running)
                tell(said_of(name, self._found[name]))
            return self._found

    def _running(self) -> None:
        if self._stopped.is_set():
            raise asyncio.CancelledError
