"""What works in a worker of vLLM: it opens a study's models, merges them, and writes the result into the running model.

The model's own loaders take the tensors, so fused projections, paddings of the vocabulary and shards of tensor
parallelism are vLLM's affair; every worker computes the whole merge, and its loaders keep its part. All that can be
known is checked before a tensor is touched. Works with one recipe at a time.
"""

import os
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from evomerge.backends.vllm.fitting import fits, same_tensors
from evomerge.backends.vllm.residence import Residence, Where, Wish, bytes_of, plan
from evomerge.backends.vllm.wire import from_wire
from evomerge.backends.weights.checkpoint import Checkpoint
from evomerge.backends.weights.fingerprint import fingerprint
from evomerge.backends.weights.statistics import LIMIT, Statistics
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import ConfigError, SourceError
from evomerge.recipe.tree import Source, WeightRecipe, recipe_id, sources


class Keeper:
    """One worker's models and what its engine holds."""

    def __init__(self, worker: Any) -> None:
        """Take a worker of vLLM, which has a `model_runner`, a `vllm_config` and a `device`."""
        self._worker = worker
        self._store = WeightStore()
        self._known: dict[Source, str] = {}
        self._residence: Residence | None = None
        self._holds: str | None = None
        self._torn = False

    def open(self, wire: Mapping[str, Any], experts: Wish) -> dict[str, Any]:
        """Open and check the models of a recipe, whose holes may be open, and hold them in the place that is wished.

        Returns the plan. Raises ConfigError for a place without room, SourceError for models that cannot be used.
        """
        recipe = self._found(from_wire(wire))
        self._store.check(recipe)
        models = {source.model: self._store.opened(source) for source in sources(recipe)}
        held = {name: model for name, model in models.items() if isinstance(model, Checkpoint)}
        sizes = {name: bytes_of(model) for name, model in held.items()}
        where = plan(sizes, self._free_gpu(), _free_host(), experts)
        if self._residence is None or self._residence.place != where.place:
            self._residence = None  # what was held elsewhere is let go before more is held
            self._residence = Residence(where.place, self._device, self._statistics(where))
        for model in held.values():
            self._residence.take(model)
        return {"plan": {"place": where.place, "device": str(self._device), "models": sizes, "work": where.work}}

    def hold(self, wire: Mapping[str, Any], wanted: str) -> dict[str, Any]:
        """Write a recipe's tensors into the running model; `wanted` is its id, which has to be that of what arrived.

        Returns the seconds of each part. Raises ConfigError or SourceError before a tensor is touched, CandidateError
        where the merge gives no finite numbers.
        """
        begun = time.perf_counter()
        recipe = self._found(from_wire(wire))
        if (arrived := recipe_id(recipe)) != wanted:
            raise ConfigError(
                f"the recipe {wanted} arrived as {arrived}; have one evomerge here and in the server's Python"
            )
        opened = time.perf_counter()
        tensors = self._checked(recipe)
        checked = time.perf_counter()
        with _all_cores():
            merging = self._swap(tensors, wanted)
        loaded = time.perf_counter() - checked
        seconds = {"open": opened - begun, "check": checked - opened, "merge": merging, "load": loaded - merging}
        return {"seconds": seconds}

    def state(self) -> dict[str, Any]:
        """Return what the engine holds and what it is."""
        return {
            "holds": self._holds,
            "torn": self._torn,
            "model": str(self._served.folder),
            "device": str(self._device),
            "place": "files" if self._residence is None else self._residence.place,
            "versions": {name: str(import_module(name).__version__) for name in ("evomerge", "vllm", "torch")},
        }

    @property
    def _device(self) -> torch.device:
        return torch.device(self._worker.device)

    @property
    def _config(self) -> Any:
        return self._worker.vllm_config.model_config

    @cached_property
    def _served(self) -> Checkpoint:
        """The checkpoint that the server was started with. Raises SourceError where it is none of safetensors."""
        served = self._store.opened(Source(str(self._config.model), self._config.revision))
        if not isinstance(served, Checkpoint):
            raise SourceError(f"{served.folder} is an adapter, and no model that a server could be started with")
        return served

    def _found(self, recipe: WeightRecipe) -> WeightRecipe:
        """Return the recipe, once its models were found here and hold what its fingerprints say.

        Raises ConfigError for a model that is another here, SourceError for one that is missing.
        """
        for source in dict.fromkeys(sources(recipe)):
            bare = Source(source.model, source.revision)
            if bare not in self._known:
                self._known[bare] = fingerprint(self._store.opened(bare))
            if self._known[bare] != source.fingerprint:
                raise ConfigError(
                    f"{source.model} is not what it was when the study read it; restore it, or start the study again"
                )
        return recipe

    def _checked(self, recipe: WeightRecipe) -> Iterator[tuple[str, Tensor]]:
        """Return what yields the recipe's tensors, once all is known to fit the running model."""
        if self._config.quantization is not None:
            raise ConfigError(f"the server quantises its model ({self._config.quantization}); start it without that")
        self._store.check(recipe)
        artifact, outline = self._store.artifact(recipe), self._store.outline(recipe)
        served = self._served
        if problem := fits(artifact, served.config) or same_tensors(outline, served.stored):
            raise ConfigError(problem)
        planned = self._store.planned(recipe)
        if self._residence is not None and self._residence.merges(planned):
            return self._residence.tensors(planned, outline)
        return self._store.tensors(recipe)

    def _swap(self, tensors: Iterator[tuple[str, Tensor]], wanted: str) -> float:
        """Let the model's loaders take the tensors; return the seconds that were spent waiting for them."""
        clock = _Clock(tensors)
        self._holds, self._torn = None, True
        with closing(cast("Generator[tuple[str, Tensor]]", tensors)):
            try:
                self._worker.model_runner.reload_weights(weights_iterator=clock)
            except BaseException:
                self._settle()
                raise
        self._retie()
        self._holds, self._torn = wanted, False
        return clock.seconds

    def _settle(self) -> None:
        """Give every layer its tensors back after a swap that failed half-way: those of the last layers, old or new.

        Without this, the next swap would find layers with some of their tensors loaded already, and leave out others.
        """
        with suppress(Exception):  # the swap's own error is the one to tell; the model is torn either way
            _vllm("model_loader.reload").finalize_layerwise_reload(self._worker.model_runner.get_model(), self._config)

    def _retie(self) -> None:
        """Make a tied output head again what its embedding is now: on a CPU it computes with a packed copy."""
        if not self._served.tied:
            return
        layers = _vllm("layers.vocab_parallel_embedding")
        modules: list[Any] = list(self._worker.model_runner.get_model().modules())
        tables = [module for module in modules if isinstance(module, layers.VocabParallelEmbedding)]
        embeddings = [table for table in tables if not isinstance(table, layers.ParallelLMHead)]
        for head in tables:
            if isinstance(head, layers.ParallelLMHead) and len(embeddings) == 1:
                head.weight = embeddings[0].weight
                head.quant_method.process_weights_after_loading(head)

    def _free_gpu(self) -> int | None:
        return torch.cuda.mem_get_info(self._device)[0] if self._device.type == "cuda" else None

    def _statistics(self, where: Where) -> Statistics:
        """Return a place for what is known of tensors, half of what the plan counts for the work."""
        return Statistics(LIMIT if where.place == "files" else where.work // 2)


class _Clock:
    """Yields what another iterator yields, and counts the seconds that it takes."""

    def __init__(self, tensors: Iterator[tuple[str, Tensor]]) -> None:
        self._tensors = tensors
        self.seconds = 0.0

    def __iter__(self) -> "_Clock":
        return self

    def __next__(self) -> tuple[str, Tensor]:
        begun = time.perf_counter()
        try:
            return next(self._tensors)
        finally:
            self.seconds += time.perf_counter() - begun


@contextmanager
def _all_cores() -> Generator[None]:
    """Let this thread, and those that it starts, use every core that some thread of this process uses.

    On a CPU, vLLM binds each of its threads to a core, and threads that merge would all inherit that of the first.
    """
    bound = os.sched_getaffinity(0)
    cores = set[int]()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it ended
            cores |= os.sched_getaffinity(int(thread.name))
    os.sched_setaffinity(0, cores | bound)
    try:
        yield
    finally:
        os.sched_setaffinity(0, bound)


def _vllm(module: str) -> Any:
    """Return a module of vLLM, which is not where this is checked and has no types for what is used of it."""
    return import_module(f"vllm.model_executor.{module}")


def _free_host() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
