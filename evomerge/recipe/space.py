"""The space: a template with holes, seen as a box of numbers that a search can move in.

`decode` turns a vector of the unit cube into the template with its holes filled in; `encode` goes back, so that
`decode(encode(recipe)) == recipe`. The template is usually a recipe, but any tree of maps, lists and holes will do. Pure:
what must be known about tensors comes in as a `Layout`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast

from evomerge.recipe.groups import Grouping, Layout
from evomerge.recipe.holes import Gene, Hole, Scalar
from evomerge.recipe.tree import ByGroup, Gradient, Input, Merge, Params, Source, Value

T = TypeVar("T")
Vector = tuple[float, ...]
"""A point of the unit cube, one number in [0, 1] a gene."""

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class _Spot:
    """One place of the template where a gene's value is written."""

    gene: int
    path: tuple[str | int, ...]
    group: str | None


class Space(Generic[T]):
    """The search space of a template.

    `layout` lists the tensors that the recipe's merges touch; it is needed as soon as a merge groups tensors (`per:`).
    Raises ValueError for holes of one name that differ, for a `when` that names no hole, and for groups that fit no tensor.
    """

    def __init__(self, template: T, layout: Layout | None = None) -> None:
        self.template = template
        self._layout = layout
        self._genes: dict[str, Gene] = {}
        self._expanded = self._expand(template, ())
        self._order = {name: index for index, name in enumerate(self._genes)}
        for gene in self._genes.values():
            for other in gene.hole.when:
                if self._condition(other, gene.group) is None:
                    raise ValueError(f"{gene.name}: when names the hole '{other}', and there is none of that name")

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
        return cast(T, self._fill(self._expanded, values))

    def encode(self, filled: T) -> Vector:
        """Return a vector that decodes to `filled`. Raises ValueError where `filled` does not come from this template."""
        found: dict[str, Scalar] = {}
        for gene, value in _pairs(self._expanded, filled, ()):
            if found.setdefault(gene.name, value) != value:
                raise ValueError(f"{gene.name} has two values, {found[gene.name]!r} and {value!r}")
        vector = list(self.start)
        for name, value in found.items():
            try:
                vector[self._order[name]] = self._genes[name].hole.unit(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        if self.decode(vector) != filled:
            raise ValueError("this recipe does not come from the space: it differs outside the holes")
        return tuple(vector)

    def _gene(self, hole: Hole, path: tuple[str | int, ...], group: str | None) -> Gene:
        name = (hole.name or ".".join(map(str, path))) + (f"@{group}" if group is not None else "")
        gene = self._genes.setdefault(name, Gene(name, hole, group))
        if gene.hole != hole:
            raise ValueError(f"the holes named '{name}' differ; holes of one name are one gene and must be the same range")
        return gene

    def _condition(self, name: str, group: str | None) -> Gene | None:
        return self._genes.get(f"{name}@{group}") or self._genes.get(name)

    def _exists(self, gene: Gene, values: Mapping[str, Scalar]) -> bool:
        for other, wanted in gene.hole.when.items():
            condition = self._condition(other, gene.group)
            if condition is None or values[condition.name] not in wanted or not self._exists(condition, values):
                return False
        return True

    # The template is expanded once: every Hole becomes the Gene that fills it, and where a merge groups its tensors,
    # a hole among its parameters becomes a ByGroup of genes.

    def _expand(self, node: Any, path: tuple[str | int, ...]) -> Any:
        match node:
            case Hole():
                return self._gene(node, path, None)
            case Merge():
                return self._expand_merge(node, path)
            case Source():
                return node
            case Mapping():
                return {key: self._expand(value, (*path, key)) for key, value in cast(Mapping[str, Any], node).items()}
            case list() | tuple():
                items = cast(Sequence[Any], node)
                return type(node)(self._expand(value, (*path, index)) for index, value in enumerate(items))  # pyright: ignore[reportUnknownVariableType]  # a list stays a list
            case _:
                return node

    def _expand_merge(self, merge: Merge, path: tuple[str | int, ...]) -> Any:
        if merge.per.trivial:
            groups = None
        elif self._layout is None:
            raise ValueError("a recipe with per: needs to know the tensors; give the space a Layout")
        else:
            groups = Grouping.of(merge, self._layout).names
        return replace(
            merge,
            method=self._expand(merge.method, (*path, "method")),
            base=self._expand(merge.base, (*path, "base")),
            inputs=tuple(
                Input(self._expand(item.recipe, (*path, "models", i, "model")), self._expand_params(item.params, (*path, "models", i), groups))
                for i, item in enumerate(merge.inputs)
            ),
            params=self._expand_params(merge.params, path, groups),
        )

    def _expand_params(self, params: Params, path: tuple[str | int, ...], groups: tuple[str, ...] | None) -> Any:
        return {key: self._expand_value(value, (*path, key), groups) for key, value in params.items()}

    def _expand_value(self, value: Value, path: tuple[str | int, ...], groups: tuple[str, ...] | None) -> Any:
        def one(value: Any, group: str | None) -> Any:
            if isinstance(value, Gradient):
                return Gradient(tuple(self._gene(p, (*path, i), group) if isinstance(p, Hole) else p for i, p in enumerate(value.points)))  # pyright: ignore[reportArgumentType]  # an expanded template holds genes
            return self._gene(value, path, group) if isinstance(value, Hole) else value

        if isinstance(value, ByGroup):
            return ByGroup({group: one(item, group) for group, item in value.values.items()})
        has_holes = isinstance(value, Hole) or (isinstance(value, Gradient) and any(isinstance(p, Hole) for p in value.points))
        if groups is not None and has_holes:
            return ByGroup({group: one(value, group) for group in groups})
        return one(value, None)

    def _fill(self, node: Any, values: Mapping[str, Scalar]) -> Any:
        def keep(value: Any) -> Any:
            return _ABSENT if isinstance(value, Gene) and not self._exists(value, values) else fill(value)

        def mapping(items: Mapping[str, Any]) -> dict[str, Any]:
            kept = {key: keep(value) for key, value in items.items()}
            return {key: value for key, value in kept.items() if value is not _ABSENT}

        def params(items: Mapping[str, Any]) -> dict[str, Any]:
            filled = mapping(items)
            return {key: value for key, value in filled.items() if not (isinstance(value, ByGroup) and not value.values)}

        def fill(node: Any) -> Any:
            match node:
                case Gene():
                    return values[node.name]
                case Merge():
                    return replace(
                        node,
                        method=fill(node.method),
                        base=fill(node.base),
                        inputs=tuple(Input(fill(item.recipe), params(item.params)) for item in node.inputs),
                        params=params(node.params),
                    )
                case Gradient():
                    return Gradient(tuple(fill(point) for point in node.points))
                case ByGroup():
                    return ByGroup(mapping(node.values))
                case Mapping():
                    return mapping(cast(Mapping[str, Any], node))
                case list() | tuple():
                    return type(node)(fill(value) for value in cast(Sequence[Any], node))  # pyright: ignore[reportUnknownVariableType]  # a list stays a list
                case _:
                    return node

        return fill(node)


def _pairs(expanded: Any, filled: Any, path: tuple[str | int, ...]) -> Iterator[tuple[Gene, Scalar]]:
    """Yield each gene of an expanded template with the value that stands in its place."""
    mismatch = f"the recipe does not come from the space: {'.'.join(map(str, path)) or 'the root'} differs"
    children: Callable[[Any], Mapping[str | int, Any]] | None = None
    match expanded:
        case Gene():
            if not isinstance(filled, float | int | str | bool):
                raise ValueError(mismatch)
            yield expanded, filled
        case Merge():
            children = _merge_children
        case Gradient():
            children = lambda node: dict(enumerate(node.points))  # noqa: E731  # one of four small views
        case ByGroup():
            children = lambda node: node.values  # noqa: E731
        case Mapping():
            children = lambda node: node  # noqa: E731
        case list() | tuple():
            children = lambda node: dict(enumerate(node))  # noqa: E731
        case _:
            pass
    if children is None:
        return
    if type(filled) is not type(expanded):  # pyright: ignore[reportUnknownArgumentType]  # any node of a template
        raise ValueError(mismatch)
    there = children(filled)
    for key, child in children(expanded).items():
        if key in there:
            yield from _pairs(child, there[key], (*path, key))


def _merge_children(merge: Merge) -> Mapping[str | int, Any]:
    inputs = {
        f"models.{i}": {"model": item.recipe, "params": dict(item.params)} for i, item in enumerate(merge.inputs)
    }
    return {"method": merge.method, "base": merge.base, "params": dict(merge.params)} | inputs
