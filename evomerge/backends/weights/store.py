"""The store of one study's models: it opens folders once, and says what a recipe becomes and what its tensors are.

Files are memory-mapped and read a tensor at a time; a merge is computed in float32 and handed out tensor by tensor, so
memory holds one tensor of each model, never a whole merge. What is scored and what is exported both come from
`tensors` and `low_rank`. Nothing is written here but a cache of fingerprints.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.backends.weights import agreement
from evomerge.backends.weights.adapter import Adapter
from evomerge.backends.weights.artifact import AdapterArtifact, Artifact, CheckpointArtifact, LowRank
from evomerge.backends.weights.compute import factors_of, stored_of, streams, write_tensor
from evomerge.backends.weights.extraction import lost
from evomerge.backends.weights.files import Opened, base_of
from evomerge.backends.weights.fingerprint import fingerprint
from evomerge.backends.weights.fitted import FittedModels, fitted
from evomerge.backends.weights.headers import Stored
from evomerge.backends.weights.loss import Loss
from evomerge.backends.weights.models import Models, module_of, natural, weight_of
from evomerge.backends.weights.plan import MergePlan, Plan, planned
from evomerge.backends.weights.raw import Raw
from evomerge.backends.weights.result import changed_config, written
from evomerge.backends.weights.tensors import all_finite
from evomerge.errors import CandidateError, ConfigError
from evomerge.recipe.groups import Layout
from evomerge.recipe.tree import Input, Merge, Source, Stack, WeightRecipe, children, result_of, sources, with_sources

if TYPE_CHECKING:
    from torch import Tensor


class WeightStore:
    """Model folders and adapters, opened when they are first needed and kept open."""

    def __init__(self) -> None:
        self._models = Models()
        self._fitted: dict[tuple[Source | str, ...], FittedModels] = {}
        self._written: dict[tuple[str, str | None], Source] = {}

    def resolve(self, recipe: WeightRecipe, root: Path) -> WeightRecipe:
        """Return the recipe with every source found and read: an absolute path or a hub id, and its fingerprint.

        Relative paths count from `root`. An adapter that stands alone becomes a merge with the base that its own
        configuration names. Raises SourceError for a source that is missing or that cannot be used.
        """
        if isinstance(recipe, Source):
            model = self._models.located(recipe, root)[1]
            if isinstance(model, Adapter):
                recipe = Merge("task_arithmetic", (Input(recipe),), base=base_of(model, root))
        return with_sources(recipe, {source: self._resolved(source, root) for source in set(sources(recipe))})

    def as_written(self, recipe: WeightRecipe) -> WeightRecipe:
        """Return a resolved recipe with the names of its models as a person wrote them; fingerprints stay."""
        return with_sources(recipe, {source: self.name_of(source) for source in sources(recipe)})

    def name_of(self, source: Source) -> Source:
        """Return a resolved source under the name that a person wrote."""
        written = self._written.get((source.model, source.revision), source)
        return replace(written, fingerprint=source.fingerprint)

    def folder(self, source: Source) -> Path:
        """Return the folder of a source. Raises SourceError when it cannot be reached."""
        return self._models.open(source).folder

    def opened(self, source: Source) -> Opened:
        """Return the checkpoint or adapter of a source. Raises SourceError when it cannot be opened."""
        return self._models.open(source)

    def planned(self, recipe: WeightRecipe) -> Plan:
        """Return what `tensors` computes from, for one who computes elsewhere. Raises ConfigError for open holes."""
        return self._plan(recipe)

    def is_adapter(self, source: Source) -> bool:
        """Return whether a source is an adapter, not a whole model. Raises SourceError when it cannot be opened."""
        return isinstance(self._models.open(source), Adapter)

    def check(self, recipe: WeightRecipe) -> None:
        """Compare all that headers and configurations tell; holes may be open. Raises SourceError or ConfigError."""
        agreement.check(self._of(recipe), recipe)

    def check_values(self, recipe: WeightRecipe) -> None:
        """Read every tensor of every source. Raises SourceError for the first that holds a NaN or an infinity."""
        agreement.check_values(self._models, recipe)

    def layout(self, recipe: WeightRecipe) -> Layout:
        """Return the tensors that a merge touches: those that its adapters change, or else all that hold floats.

        Tied weights count once. The same for every filling of a recipe's holes.
        """
        return self._of(recipe).layout(recipe)

    def artifact(self, recipe: WeightRecipe) -> Artifact:
        """Return what a recipe without holes becomes. Nothing is computed.

        Raises CandidateError for parameters that no result can be computed from.
        """
        skeleton = self._of(recipe).form(recipe)
        base = self._of(recipe).adapter_base(recipe)
        plan = self._plan(recipe)
        if base is None or not isinstance(plan, MergePlan) or not plan.low_rank or result_of(recipe).dtype:
            size = sum(tensor.size for tensor in self.outline(recipe).values())
            tokenizer = self._of(recipe).tokenizer
            return CheckpointArtifact(skeleton.folder, size, changed_config(skeleton, recipe), tokenizer)
        ranks = {module: max(plan.rank(module), 1) for module in self._modules(recipe)}
        size = sum(4 * rank * sum(skeleton.stored[weight_of(module)].shape) for module, rank in ranks.items())
        return AdapterArtifact(base, skeleton.folder, max(ranks.values()), size)

    def outline(self, recipe: WeightRecipe) -> Mapping[str, Stored]:
        """Return dtype and shape of what `tensors` will yield, in its order."""
        stored = self._of(recipe).form(recipe).stored
        return {name: written(stored[name], recipe) for name in sorted(stored, key=natural)}

    def tensors(self, recipe: WeightRecipe) -> "Iterator[tuple[str, Tensor]]":
        """Yield what `raws` yields as tensors of torch."""
        for name, raw in self.raws(recipe):
            yield name, raw.tensor()

    def raws(
        self, recipe: WeightRecipe, room: Callable[[str], Raw | None] = lambda _: None, *, lasting: bool = True
    ) -> Iterator[tuple[str, Raw]]:
        """Yield the names and tensors of the recipe's checkpoint, in the base's dtypes or its own; tied weights once.

        Computed in float32 and rounded once, into the `room` that there is for a tensor of that name (of its dtype and
        shape), or else into new memory. For a recipe that becomes an adapter, this is the base with `low_rank` added.
        Tensors that hold no floats are the base's. Unless `lasting`, the models are not merged again, and nothing as
        large as they are is kept for that. Raises CandidateError for a result that is not finite.
        """
        plan = self._plan(recipe, lasting=lasting)
        outline = self.outline(recipe)

        def merged(name: str) -> tuple[str, Raw]:
            announced = outline[name]
            out = room(name) or Raw.empty(announced.dtype, announced.shape)
            if not announced.is_float:
                out.elements[:] = stored_of(plan, name).elements
            elif not write_tensor(plan, name, out):
                raise _overflow(name, announced.dtype)
            return name, out

        yield from self._models.statistics.threads.ahead(merged, outline) if streams(plan) else map(merged, outline)

    def low_rank(self, recipe: WeightRecipe) -> Mapping[str, LowRank]:
        """Return the factors of a recipe that becomes an adapter, by module name (`model.layers.0.self_attn.q_proj`).

        They are float32 whatever the adapters are stored in: `a` is what was stored, and `b` carries scales and
        weights, which rounding to bf16 would change by up to 0.4 %. A module that all weights leave out is there, with
        a rank of one and zeros. Raises ConfigError for a recipe that becomes a checkpoint, CandidateError for a result
        that is not finite.
        """
        import torch

        plan = self._plan(recipe)
        if not isinstance(plan, MergePlan) or not plan.low_rank or result_of(recipe).dtype:
            raise ConfigError("this recipe becomes a checkpoint, and has no low-rank factors")
        skeleton = self._of(recipe).form(recipe)
        factors: dict[str, LowRank] = {}
        for module in self._modules(recipe):
            found = factors_of(plan, module)
            if found is None:
                rows, columns = skeleton.stored[weight_of(module)].shape
                found = LowRank(a=torch.zeros(1, columns), b=torch.zeros(rows, 1))
            _check_finite(module, found.a)
            _check_finite(module, found.b)
            factors[module] = found
        return factors

    def loss(self, recipe: WeightRecipe, factors: Mapping[str, LowRank]) -> Loss | None:
        """Return what the `factors` of a recipe lack of its change to the base; None where they are all of it.

        The whole change is computed for that, tensor by tensor. Raises CandidateError where it cannot be.
        """
        if not isinstance(recipe, Merge) or recipe.refactor is None:
            return None
        whole = replace(recipe, refactor=None)
        plan = self._plan(whole)
        if not isinstance(plan, MergePlan):
            return None
        if plan.low_rank and all(max(plan.rank(name), 1) == low.a.shape[0] for name, low in factors.items()):
            return None
        return lost(plan, self._of(recipe).layout(whole).tensors, factors, recipe.refactor)

    def memory(self, recipe: WeightRecipe) -> int:
        """Return the bytes that computing the recipe takes at its peak, estimated from its largest tensor.

        Counted are a float32 tensor of each model that is held at a time, and as much again for the method's own work;
        not the result, nor the mapped files, which the system drops when it needs room.
        """
        outline = self.outline(recipe)
        merged = max(outline[name].elements for name in self.layout(recipe).tensors)
        copied = max(tensor.elements for tensor in outline.values())
        return 2 * 4 * max(_held(recipe) * merged, copied)

    def _of(self, recipe: WeightRecipe) -> Models:
        """Return the models that a recipe is made of, fitted to the tokenizer that it chooses."""
        chosen = result_of(recipe).tokenizer
        if chosen is None:
            return self._models
        key = (chosen, *dict.fromkeys(sources(recipe)))
        if key not in self._fitted:
            self._fitted[key] = fitted(self._models, recipe)
        return self._fitted[key]

    def _resolved(self, source: Source, root: Path) -> Source:
        found, model = self._models.located(source, root)
        self._written.setdefault((found.model, found.revision), source)
        return replace(found, fingerprint=fingerprint(model))

    def _plan(self, recipe: WeightRecipe, *, lasting: bool = True) -> Plan:
        models = self._of(recipe)
        return planned(models, recipe, models.layout(recipe), lasting=lasting)

    def _modules(self, recipe: WeightRecipe) -> list[str]:
        return [module_of(name) for name in sorted(self._of(recipe).changed(recipe) or (), key=natural)]


def _held(recipe: WeightRecipe) -> int:
    """Return how many tensors are held at a time: base, inputs and result of every merge on the deepest way."""
    if isinstance(recipe, Source):
        return 1
    below = [child for _, child in children(recipe)]
    deepest = max(map(_held, below))
    return deepest + (1 if isinstance(recipe, Stack) else len(below))


def _check_finite(name: str, tensor: "Tensor") -> None:
    if not all_finite(tensor):
        raise _overflow(name, "F32")


def _overflow(name: str, dtype: str) -> CandidateError:
    words = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
    return CandidateError(f"the merged {name} overflows {words[dtype]}; use smaller weights")
