"""A recipe made ready for computing: every source opened, every method looked up, every tensor's parameters at hand.

A plan decides what is exact: a weighted sum of adapters whose weights leave the base alone is low-rank itself. It reads
no tensor.
"""

from dataclasses import dataclass
from functools import cached_property

from evomerge.backends.weights.adapter import Adapter
from evomerge.backends.weights.checkpoint import Checkpoint
from evomerge.backends.weights.models import Models, weight_of
from evomerge.backends.weights.stacking import Place, Stacked
from evomerge.backends.weights.statistics import Statistics
from evomerge.errors import ConfigError
from evomerge.recipe.groups import GroupError, Grouping, Layout
from evomerge.recipe.holes import Hole
from evomerge.recipe.tree import Merge, Source, Stack, WeightRecipe, children, recipe_id
from evomerge.recipe.values import ByGroup, ByPattern, Gradient, Value
from evomerge.strategies.merge.protocol import Coefficients, Method, Parameters, Stage, TensorContext
from evomerge.strategies.merge.registry import get
from evomerge.strategies.merge.resolve import parameters_for

_SUM_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class MergePlan:
    """One merge of a recipe, with its base and inputs planned; `changed` is None but for adapters on one base.

    Unless `lasting`, its tensors are merged once.
    """

    merge: Merge
    method: Method
    grouping: Grouping
    base: "Plan | None"
    inputs: "tuple[Plan, ...]"
    fingerprints: tuple[str, ...]
    changed: frozenset[str] | None
    statistics: Statistics
    lasting: bool = True

    @cached_property
    def identity(self) -> tuple[str | None, ...]:
        """What base (None where there is none) and inputs are, to know again what was found out about them."""
        base = None if self.merge.base is None else _fingerprint(self.merge.base)
        return base, *self.fingerprints

    def touches(self, name: str) -> bool:
        """Return whether the merge may change a tensor; what it does not touch is the base's."""
        return self.changed is None or name in self.changed

    def context(self, name: str) -> TensorContext:
        """Return what a method may know about a tensor."""
        layout = self.grouping.layout
        return TensorContext(name, layout.depth(name), layout.layers, self.merge.seed, self.fingerprints)

    def parameters(self, name: str) -> Parameters:
        """Return the method's parameters for a tensor."""
        known = self._parameters.get(name)
        if known is None:
            known = self._parameters[name] = self._found(name)
        return known

    @cached_property
    def _parameters(self) -> dict[str, Parameters]:
        return {}

    def _found(self, name: str) -> Parameters:
        try:
            group = self.grouping.group(name)
        except GroupError as error:
            raise ConfigError(str(error)) from None
        if self._varies:
            return parameters_for(self.merge, self.method, group, self.grouping.layout.depth(name), name)
        if group not in self._of_groups:
            self._of_groups[group] = parameters_for(self.merge, self.method, group, 0.0)
        return self._of_groups[group]

    @cached_property
    def _of_groups(self) -> dict[str | None, Parameters]:
        return {}

    @cached_property
    def _varies(self) -> bool:
        """Whether some value differs between tensors of one group: by their names, or with their depth."""
        values: list[Value] = [*self.merge.params.values()]
        values += [value for item in self.merge.inputs for value in item.params.values()]
        values += [inner for value in values if isinstance(value, ByGroup) for inner in value.values.values()]
        return any(isinstance(value, ByPattern | Gradient) for value in values)

    def stages(self, name: str) -> tuple[Stage, ...]:
        """Return what has to be known of the whole model before a tensor can be merged."""
        return () if self.method.stages is None else self.method.stages(self.parameters(name))

    @cached_property
    def staged(self) -> tuple[str, ...]:
        """The tensors of which `stages` has any, in natural order."""
        return tuple(name for name in self.grouping.layout.tensors if self.stages(name))

    def coefficients(self, name: str) -> Coefficients | None:
        """Return the weights of a tensor's sum, or None for a method that is no weighted sum."""
        return (
            None
            if self.method.coefficients is None
            else self.method.coefficients(self.context(name), self.parameters(name))
        )

    @cached_property
    def exact(self) -> bool:
        """True when the merge is low-rank without loss.

        All inputs are adapters, or merges that are low-rank, and the weights keep the base whole.
        """
        if self.changed is None or self.method.coefficients is None:
            return False
        if not all(
            isinstance(item, Adapter) or (isinstance(item, MergePlan) and item.low_rank) for item in self.inputs
        ):
            return False
        sums = (self.coefficients(name) for name in self.changed)
        return all(found is not None and abs(found.base + sum(found.inputs) - 1) <= _SUM_TOLERANCE for found in sums)

    @property
    def low_rank(self) -> bool:
        """True when the result is an adapter: exactly, or because the recipe asks for one."""
        return self.changed is not None and (self.merge.refactor is not None or self.exact)

    def rank(self, module: str) -> int:
        """Return the rank of a module of a low-rank result, 0 where nothing changes it."""
        refactor = self.merge.refactor
        if not self.exact:
            return min(refactor or 0, *self._shape(module)) if self._touches(module) else 0
        total = sum(rank_of(item, module) for item in self.weighted(module))
        return min(total, refactor, *self._shape(module)) if refactor is not None and total > refactor else total

    def weighted(self, module: str) -> "dict[Plan, float]":
        """Return the inputs of an exact sum that change a module, with their weights; weights of zero are left out."""
        name = weight_of(module)
        found = self.coefficients(name) if self._touches(module) else None
        pairs = zip(self.inputs, found.inputs, strict=True) if found is not None else ()
        weights: dict[Plan, float] = {}
        for item, weight in pairs:
            if weight != 0 and rank_of(item, module):
                weights[item] = weights.get(item, 0.0) + weight
        return weights

    def _touches(self, module: str) -> bool:
        return self.changed is not None and weight_of(module) in self.changed

    def _shape(self, module: str) -> tuple[int, ...]:
        if not isinstance(self.base, Checkpoint):
            raise ConfigError("a merge of adapters needs a checkpoint as its base")
        return self.base.stored[weight_of(module)].shape


@dataclass(frozen=True, eq=False)
class StackPlan:
    """One stack of a recipe, with what its tensors come from planned: the base, and each slice."""

    form: Stacked
    children: "tuple[Plan, ...]"

    def place(self, name: str) -> "tuple[Plan, Place]":
        """Return which plan a tensor comes from, and which tensor it is there."""
        place = self.form.places.get(name, Place(0, name))
        return self.children[place.child], place


Plan = Checkpoint | Adapter | MergePlan | StackPlan


def rank_of(plan: Plan, module: str) -> int:
    """Return the rank at which a plan changes a module: 0 where it does not. Only for adapters and low-rank merges."""
    match plan:
        case Adapter():
            return plan.modules[module].rank if module in plan.modules else 0
        case MergePlan():
            return plan.rank(module)
        case Checkpoint() | StackPlan():
            return 0


def planned(models: Models, recipe: WeightRecipe, layout: Layout, *, lasting: bool = True) -> Plan:
    """Return the plan of a recipe without holes; `layout` is that of the whole recipe, by which its merges group.

    Unless `lasting`, nothing that is as large as a model is kept for the next plan.
    Raises ConfigError for a method that is not known, SourceError for sources that cannot be opened.
    """
    if isinstance(recipe, Source):
        return models.open(recipe)
    below = {key: planned(models, child, layout.part(*key), lasting=lasting) for key, child in children(recipe)}
    base = below.pop(("base",), None)
    if isinstance(recipe, Stack):
        if any(isinstance(item.scale, Hole) for item in recipe.slices):
            raise ConfigError("the scale of a slice is still a hole; fill it in before merging")
        slices = tuple(below.values())
        form = models.stacked(recipe)
        if len(slices) == 1 and base is None and form.renames_nothing:
            return slices[0]
        return StackPlan(form, (slices[0] if base is None else base, *slices))
    if isinstance(recipe.method, Hole):
        raise ConfigError("the method is still a hole; fill it in before merging")
    return MergePlan(
        merge=recipe,
        method=get(recipe.method),
        grouping=Grouping.of(recipe, layout),
        base=base,
        inputs=tuple(below.values()),
        fingerprints=tuple(_fingerprint(item.recipe) for item in recipe.inputs),
        changed=models.changed(recipe),
        statistics=models.statistics,
        lasting=lasting,
    )


def _fingerprint(recipe: WeightRecipe) -> str:
    return recipe.fingerprint if isinstance(recipe, Source) else recipe_id(recipe)
