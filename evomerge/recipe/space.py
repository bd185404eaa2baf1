"""The space: a template with holes, seen as a box of numbers that a search can move in.

`decode` turns a vector of the unit cube into the template with its holes filled in; `encode` goes back, so that
`decode(encode(recipe)) == recipe`. The template is usually a recipe, but any tree of maps, lists and holes will do.
Pure: what must be known about tensors comes in as a `Layout`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast

from evomerge.recipe.groups import Grouping, Layout
from evomerge.recipe.holes import Hole, Scalar
from evomerge.recipe.served import ServedMerge
from evomerge.recipe.tree import Ensemble, Input, Member, Merge, Stack
from evomerge.recipe.values import ByGroup, ByPattern, Gradient

T = TypeVar("T")
Vector = tuple[float, ...]
"""A point of the unit cube, one number in [0, 1] a gene."""

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Gene:
    """One scalar of the vector: a hole, in one group of tensors where the recipe has groups."""

    name: str
    hole: Hole
    group: str | None = None


class Space(Generic[T]):
    """The search space of a template.

    `layout` lists the tensors that the recipe's merges touch; it is needed as soon as a merge groups tensors (`per:`).
    Raises ValueError for holes of one name that differ, for two places that cannot be told apart, for a `when` that can
    never hold, and for groups that fit no tensor.
    """

    def __init__(self, template: T, layout: Layout | None = None) -> None:
        self.template = template
        self._genes: dict[str, Gene] = {}
        self._unnamed: set[str] = set()
        self._tree = self._expand(template, "", (), layout)
        self._order = {name: index for index, name in enumerate(self._genes)}
        for gene in self._genes.values():
            self._check_conditions(gene, ())

    @property
    def genes(self) -> tuple[Gene, ...]:
        """The genes in the order of the vector."""
        return tuple(self._genes.values())

    def __len__(self) -> int:
        return len(self._genes)

    @property
    def start(self) -> Vector:
        """Where a search begins: each hole's own start."""
        return tuple(gene.hole.start_unit for gene in self.genes)

    def decode(self, vector: Sequence[float]) -> T:
        """Return the template with its holes filled in. Raises ValueError for a vector of another length."""
        if len(vector) != len(self):
            raise ValueError(f"the space has {len(self)} genes and the vector {len(vector)} numbers")
        values = {gene.name: gene.hole.value(float(unit)) for gene, unit in zip(self.genes, vector, strict=True)}
        return cast(T, self._fill(self._tree, values))

    def encode(self, filled: T) -> Vector:
        """Return a vector that decodes to `filled`. Raises ValueError where it does not come from this template."""
        vector = list(self.start)
        seen: dict[str, Scalar] = {}
        for gene, value in _pairs(self._tree, filled):
            if seen.setdefault(gene.name, value) != value:
                raise ValueError(f"{gene.name} has two values, {seen[gene.name]!r} and {value!r}")
            try:
                vector[self._order[gene.name]] = gene.hole.unit(value)
            except ValueError as error:
                raise ValueError(f"{gene.name}: {error}") from None
        if self.decode(vector) != filled:
            raise ValueError("this recipe does not come from the space: it differs outside the holes")
        return tuple(vector)

    # The template is expanded once: a Gene stands where each Hole stood, and where a merge groups its tensors, a hole
    # among its parameters becomes a ByGroup with a gene for every group.

    def _expand(self, node: Any, path: str, groups: tuple[str, ...], layout: Layout | None) -> Any:
        if isinstance(node, Hole):
            if groups:
                return ByGroup({group: self._gene(node, path, group) for group in groups})  # pyright: ignore[reportArgumentType]  # a gene in a hole's place
            return self._gene(node, path, None)
        if isinstance(node, Gradient) and groups and any(isinstance(point, Hole) for point in node.points):
            return ByGroup({group: self._expand_in(node, path, group) for group in groups})
        if isinstance(node, ByGroup):
            return ByGroup({group: self._expand_in(value, path, group) for group, value in node.values.items()})
        if isinstance(node, ByPattern):
            groups = ()  # a pattern says itself which tensors it is for
        parts = _parts(node)
        if parts is None:
            return node
        _check_leavable(node, parts, path)
        inner = _groups(node, layout) if isinstance(node, Merge) else groups
        grouped = {key: inner if not isinstance(node, Merge) or key.endswith("params") else () for key in parts}
        below = {key: None if layout is None else layout.part(key) for key in parts}
        return _rebuilt(
            node,
            {
                key: self._expand(part, _joined(path, key, node), grouped[key], below[key])
                for key, part in parts.items()
            },
        )

    def _expand_in(self, node: Any, path: str, group: str) -> Any:
        """Expand a value that belongs to one group."""
        if isinstance(node, Hole):
            return self._gene(node, path, group)
        parts = _parts(node)
        if parts is None:
            return node
        _check_leavable(node, parts, path)
        return _rebuilt(
            node, {key: self._expand_in(part, _joined(path, key, node), group) for key, part in parts.items()}
        )

    def _gene(self, hole: Hole, path: str, group: str | None) -> Gene:
        name = (hole.name or path) + (f"@{group}" if group is not None else "")
        if hole.name is None:
            if name in self._unnamed:
                raise ValueError(f"two holes stand at '{name}' and would be one gene; give one of them a name")
            self._unnamed.add(name)
        gene = self._genes.setdefault(name, Gene(name, hole, group))
        if replace(gene.hole, name=None) != replace(hole, name=None):
            raise ValueError(
                f"the holes named '{name}' differ; holes of one name are one gene and must be the same range"
            )
        return gene

    def _check_conditions(self, gene: Gene, behind: tuple[str, ...]) -> None:
        """See that the holes that a gene depends on are there, can have the values, and do not depend on it."""
        if gene.name in behind:
            raise ValueError(f"{gene.name}: it would exist only when it exists ({' <- '.join((*behind, gene.name))})")
        for other, wanted in gene.hole.when.items():
            condition = self._condition(other, gene)
            if condition is None:
                raise ValueError(f"{gene.name}: when names the hole '{other}', and there is none of that name")
            if not wanted:
                raise ValueError(f"{gene.name}: when names no value of '{other}'; name one, or remove it")
            for value in wanted:
                try:
                    condition.hole.unit(value)
                except ValueError as error:
                    raise ValueError(f"{gene.name}: when can never hold, as '{other}' is never that: {error}") from None
            self._check_conditions(condition, (*behind, gene.name))

    def _condition(self, name: str, gene: Gene) -> Gene | None:
        return self._genes.get(f"{name}@{gene.group}") or self._genes.get(name)

    def _exists(self, gene: Gene, values: Mapping[str, Scalar]) -> bool:
        for other, wanted in gene.hole.when.items():
            condition = self._condition(other, gene)
            if condition is None or values[condition.name] not in wanted or not self._exists(condition, values):
                return False
        return True

    def _fill(self, node: Any, values: Mapping[str, Scalar]) -> Any:
        """Put values in the genes' places; a gene that does not exist here takes its key with it."""
        if isinstance(node, Gene):
            return values[node.name] if self._exists(node, values) else _ABSENT
        parts = _parts(node)
        if parts is None:
            return node
        filled = {key: self._fill(part, values) for key, part in parts.items()}
        kept = {key: part for key, part in filled.items() if part is not _ABSENT}
        if isinstance(node, ByGroup | ByPattern | Gradient) and not kept:
            return _ABSENT
        return _rebuilt(node, kept)


def _groups(merge: Merge, layout: Layout | None) -> tuple[str, ...]:
    if merge.per.trivial:
        return ()
    if layout is None:
        raise ValueError("a recipe with per: needs to know the tensors; give the space a Layout")
    return Grouping.of(merge, layout).names


def _joined(path: str, key: str, node: Any) -> str:
    """Name a part of a node as a person would; the params of a merge, input, ensemble or member stand under it."""
    if isinstance(node, Merge | Ensemble | ServedMerge):
        key = key.removesuffix("params").removesuffix(".")
    return f"{path}.{key}" if path and key else path or key


def _check_leavable(node: Any, parts: Mapping[str, Any], path: str) -> None:
    """Raise ValueError for a hole with a condition in a place that cannot be left out."""
    conditions = [part.when for part in parts.values() if isinstance(part, Hole) and part.when]
    if not conditions or isinstance(node, Mapping | ByGroup | ByPattern):
        return
    together = len(conditions) == len(parts) and all(when == conditions[0] for when in conditions)
    if not (isinstance(node, Gradient) and together):
        raise ValueError(
            f"{path or 'the template'}: a hole with when: may only stand where its key can be left out, which is in a "
            "map; of a gradient all points go together, with one condition"
        )


def _parts(node: Any) -> dict[str, Any] | None:
    """Return the children of a node of a template by name, or None for a leaf. The inverse of `_rebuilt`."""
    match node:
        case Merge():
            parts: dict[str, Any] = {"method": node.method, "base": node.base}
            for index, item in enumerate(node.inputs):
                parts |= {f"models.{index}.model": item.recipe, f"models.{index}.params": item.params}
            return parts | {"params": node.params}
        case Stack():
            of_slices: dict[str, Any] = {"base": node.base}
            for index, item in enumerate(node.slices):
                of_slices |= {f"stack.{index}.model": item.recipe, f"stack.{index}.scale": item.scale}
            return of_slices
        case Ensemble():
            of_members = {f"members.{index}.params": item.params for index, item in enumerate(node.members)}
            return {"combine": node.combiner, **of_members, "params": node.params}
        case ServedMerge():
            of_inputs = {f"models.{index}.params": item.params for index, item in enumerate(node.inputs)}
            return of_inputs | {"params": node.params}
        case Gradient():
            return {str(index): point for index, point in enumerate(node.points)}
        case ByGroup():
            return dict(node.values)
        case ByPattern():
            return dict(node.values)
        case Mapping():
            return {str(key): value for key, value in cast(Mapping[str, Any], node).items()}
        case list() | tuple():
            return {str(index): value for index, value in enumerate(cast(Sequence[Any], node))}
        case _:
            return None


def _rebuilt(node: Any, parts: Mapping[str, Any]) -> Any:
    """Return a node like `node` with other children."""
    match node:
        case Merge():
            inputs = (Input(parts[f"models.{i}.model"], parts[f"models.{i}.params"]) for i in range(len(node.inputs)))
            return replace(
                node, method=parts["method"], base=parts["base"], inputs=tuple(inputs), params=parts["params"]
            )
        case Stack():
            slices = (
                replace(item, recipe=parts[f"stack.{i}.model"], scale=parts[f"stack.{i}.scale"])
                for i, item in enumerate(node.slices)
            )
            return replace(node, base=parts["base"], slices=tuple(slices))
        case Ensemble():
            members = (Member(item.recipe, parts[f"members.{i}.params"]) for i, item in enumerate(node.members))
            return replace(node, combiner=parts["combine"], members=tuple(members), params=parts["params"])
        case ServedMerge():
            adapters = (replace(item, params=parts[f"models.{i}.params"]) for i, item in enumerate(node.inputs))
            return replace(node, inputs=tuple(adapters), params=parts["params"])
        case Gradient():
            return Gradient(tuple(parts.values()))
        case ByGroup():
            return ByGroup(dict(parts))
        case ByPattern():
            return ByPattern(tuple(parts.items()))
        case Mapping():
            return dict(parts)
        case list():
            return list(parts.values())
        case _:
            return tuple(parts.values())


def _pairs(tree: Any, filled: Any) -> Iterator[tuple[Gene, Scalar]]:
    """Yield each gene of an expanded template with the value that stands in its place, if any does."""
    if isinstance(tree, Gene):
        if not isinstance(filled, float | int | str | bool):
            raise ValueError(f"{tree.name}: a single value is expected there, not {filled!r}")
        yield tree, filled
        return
    there = _parts(filled)
    for key, part in (_parts(tree) or {}).items():
        if there is not None and key in there:
            yield from _pairs(part, there[key])
