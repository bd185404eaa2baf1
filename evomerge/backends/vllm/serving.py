"""What a server has to serve for some recipes: which folder it starts from, whether adapters, how wide they may be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evomerge.backends.weights.artifact import AdapterArtifact, CheckpointArtifact
from evomerge.backends.weights.checkpoint import HEAD
from evomerge.backends.weights.models import is_linear, module_of, weight_of
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import CandidateError
from evomerge.recipe.tree import Input, Merge, Source, WeightRecipe, sources

WIDEST = 512
"""The widest adapter that vLLM takes."""

NO_LIKELIHOODS = (
    "adapters of the recipe change the output head, and where one may, vLLM tells no likelihoods of a prompt; score "
    "generated answers (no `likelihood` and no `choice`), or use the backend local"
)


@dataclass(frozen=True, slots=True)
class Serving:
    """What one server serves for all recipes of a study.

    It starts from `folder`, whose weights are those of `base` where that is known; `config` stands in place of the
    folder's configuration for models of another form. `modules` are the weights that adapters may change, with their
    shapes (out, in), empty where there are no adapters; `rank` is the widest that is expected of them.
    """

    folder: Path
    base: Source | None
    config: Mapping[str, Any] | None
    modules: Mapping[str, tuple[int, int]]
    rank: int

    @property
    def adapters(self) -> bool:
        """Whether adapters are loaded beside the base."""
        return bool(self.modules)

    @property
    def changes_head(self) -> bool:
        """Whether adapters may change the output head."""
        return module_of(HEAD) in self.modules

    @property
    def kinds(self) -> tuple[str, ...]:
        """The last parts of the modules' names, as in `q_proj`."""
        return tuple(sorted({module.rpartition(".")[2] for module in self.modules}))


def serving(store: WeightStore, recipes: Sequence[WeightRecipe]) -> Serving:
    """Return what is served for recipes without holes, the first of which is typical of a search.

    Raises ConfigError for recipes that come to nothing, CandidateError where all of them are broken.
    """
    found = [(recipe, store.artifact(recipe)) for recipe in recipes]
    adapters = [(recipe, one) for recipe, one in found if isinstance(one, AdapterArtifact)]
    if adapters:
        base, folder = adapters[0][1].base, adapters[0][1].skeleton
        own = [(recipe, one) for recipe, one in adapters if one.base == base]
        modules = {name: shape for recipe, _ in own for name, shape in _modules(store, recipe).items()}
        rank = max(max(one.rank, _widest(store, recipe)) for recipe, one in own)
        return Serving(folder, base, None, modules, min(rank, WIDEST))
    recipe, artifact = found[0]
    if not isinstance(artifact, CheckpointArtifact):
        raise CandidateError("this recipe becomes neither a checkpoint nor an adapter")
    whole = [source for source in sources(recipe) if not store.is_adapter(source)]
    base = next((source for source in whole if store.folder(source) == artifact.skeleton), None)
    return Serving(artifact.skeleton, None if artifact.config else base, artifact.config, {}, 0)


def without_head(what: Serving) -> Serving:
    """Return what is served where no adapter changes the output head, and likelihoods can be asked for."""
    return replace(what, modules={name: shape for name, shape in what.modules.items() if weight_of(name) != HEAD})


def _modules(store: WeightStore, recipe: WeightRecipe) -> dict[str, tuple[int, int]]:
    outline = store.outline(recipe)
    changed = [name for name, tensor in outline.items() if is_linear(name, tensor)]
    if isinstance(recipe, Merge) and recipe.refactor is None:
        changed = store.layout(recipe).tensors
    shapes = {module_of(name): outline[name].shape for name in changed}
    return {module: (shape[0], shape[1]) for module, shape in shapes.items() if len(shape) == 2}


def _widest(store: WeightStore, recipe: WeightRecipe) -> int:
    """Return the rank of a recipe's adapter if no weight of it were zero."""
    if not isinstance(recipe, Merge):
        return 0
    if recipe.refactor is not None:
        return recipe.refactor
    return sum(
        _alone(store, Merge("task_arithmetic", (Input(item.recipe),), recipe.base))
        if isinstance(item.recipe, Source)
        else _widest(store, item.recipe)
        for item in recipe.inputs
    )


def _alone(store: WeightStore, recipe: Merge) -> int:
    artifact = store.artifact(recipe)
    return artifact.rank if isinstance(artifact, AdapterArtifact) else 0
