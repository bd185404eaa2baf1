"""From a recipe's merge to a method's parameters: what a person wrote is checked, and values are picked tensor by
tensor.

Nothing here needs torch or a model. Every problem is a `RecipeProblem` that says where in the recipe it stands; who
read the recipe adds file and line.

Where the method itself is a choice, nothing is silently ignored: a parameter that some of the choices do not have
must be a hole that exists only `when` the method is one that has it (a constant is a hole of one choice). Decoding
leaves such a hole out together with the methods that would not know it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from evomerge.errors import ConfigError
from evomerge.recipe.groups import GroupError, Grouping, Layout
from evomerge.recipe.holes import Hole, Scalar
from evomerge.recipe.tree import Merge, Source, Stack, WeightRecipe, children
from evomerge.recipe.values import ByGroup, ByPattern, Gradient, Params, Value
from evomerge.strategies.merge.protocol import Method, Parameter, Parameters
from evomerge.strategies.merge.registry import get, nearest

Path = tuple[str | int, ...]
Owner = Literal["merge", "input"]

_WHERE: Mapping[Owner, str] = {"merge": "the merge itself, beside 'method'", "input": "each of the models"}


class RecipeProblem(ValueError):
    """A recipe that cannot be; `path` says where (models, 1, weight), `sentence` what is wrong and what would be
    right.
    """

    def __init__(self, path: Path, sentence: str) -> None:
        super().__init__(f"{dotted(path)}: {sentence}")
        self.path = path
        self.sentence = sentence


def dotted(path: Path) -> str:
    """Return a path as a person writes it: models[1].weight."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".") or "recipe"


def check(recipe: WeightRecipe, layout: Layout | None = None) -> None:
    """Check every merge of a tree, with holes or without. Raises RecipeProblem for the first thing that is wrong."""

    def visit(node: WeightRecipe, layout: Layout | None, path: Path) -> None:
        match node:
            case Merge():
                check_merge(node, layout, path)
            case Stack():
                _check_scales(node, path)
            case Source():
                pass
        for key, child in children(node):
            visit(child, None if layout is None else layout.part(*key), (*path, *key))

    visit(recipe, layout, ())


def _check_scales(stack: Stack, path: Path) -> None:
    for index, item in enumerate(stack.slices):
        for value in _extremes(item.scale):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise RecipeProblem((*path, "stack", index, "scale"), f"must be a number, and is {_plain(value)}")


def check_merge(merge: Merge, layout: Layout | None = None, path: Path = ()) -> None:
    """Check one merge against its method: what it takes, the names of its parameters, their types and bounds.

    With a `layout` the groups are checked against the tensors there are; without, as far as their names are known.
    `path` is where in its tree the merge stands. Raises RecipeProblem for the first thing that is wrong.
    """
    candidates = _methods(merge, path)
    for method in candidates:
        _check_models(merge, method, path)
    groups = _groups(merge, layout, path)
    if layout is not None:
        _check_patterns(merge, layout, path)
    for owner, params, at in _owners(merge, path):
        for name, value in params.items():
            known = [method for method in candidates if name in _declared(method, owner)]
            if not known:
                raise RecipeProblem((*at, name), _unknown(name, owner, candidates))
            for part, spot in _parts(value, (*at, name), groups):
                if len(known) < len(candidates):
                    named, all_of_them = [method.name for method in known], [method.name for method in candidates]
                    check_condition(part, _gene(merge, path), all_of_them, named, spot)
                for method in known:
                    check_value(part, _declared(method, owner)[name], spot)


def parameters_for(merge: Merge, method: Method, group: str | None, depth: float, tensor: str = "") -> Parameters:
    """Return a merge's parameters for a tensor of that group, depth and name, defaults filled in.

    What a ByGroup does not name, or no pattern of a ByPattern matches, is at its default. Raises RecipeProblem for a
    parameter that the method does not have (it is not left out in silence) and for a hole that is still open.
    """

    def filled(params: Params, owner: Owner, path: Path) -> dict[str, Scalar]:
        declared = _declared(method, owner)
        for name in params.keys() - declared.keys():
            raise RecipeProblem((*path, name), _unknown(name, owner, (method,)))
        return {
            name: _pick(params[name], parameter, (group, depth, tensor), (*path, name))
            if name in params
            else parameter.default
            for name, parameter in declared.items()
        }

    inputs = tuple(filled(item.params, "input", ("models", index)) for index, item in enumerate(merge.inputs))
    return Parameters(filled(merge.params, "merge", ()), inputs)


def _pick(value: Value, parameter: Parameter, place: tuple[str | None, float, str], path: Path) -> Scalar:
    group, depth, tensor = place
    if isinstance(value, ByGroup):
        if group is None:
            raise RecipeProblem(path, "has values for groups, and this merge has no groups (per:)")
        value = value.values.get(group, parameter.default)
    if isinstance(value, ByPattern):
        found = value.of(tensor)
        value = parameter.default if found is None else found
    if isinstance(value, Gradient):
        value = value.at(depth)
    if isinstance(value, Hole):
        raise RecipeProblem(path, "is a range, and a merge needs a value; write a number, or search for one")
    return float(value) if _is_number(parameter) else value


def _owners(merge: Merge, path: Path) -> Iterator[tuple[Owner, Params, Path]]:
    yield "merge", merge.params, path
    for index, item in enumerate(merge.inputs):
        yield "input", item.params, (*path, "models", index)


def _methods(merge: Merge, path: Path) -> tuple[Method, ...]:
    """Return the methods that a merge can have."""
    names: Sequence[Scalar] = merge.method.choices if isinstance(merge.method, Hole) else (merge.method,)
    if not names:
        raise RecipeProblem((*path, "method"), "a method is a name, or a hole with choices of names")
    try:
        return tuple(get(str(name)) for name in names)
    except ConfigError as error:
        raise RecipeProblem((*path, "method"), str(error)) from None


def _check_models(merge: Merge, method: Method, path: Path) -> None:
    if method.needs.base == "required" and merge.base is None:
        raise RecipeProblem((*path, "base"), f"{method.name} needs a base, the model that the others were trained from")
    counted = method.needs.base == "counted"
    there = len(merge.inputs) + (1 if counted and merge.base is not None else 0)
    least, most = method.needs.inputs
    if there < least or (most is not None and there > most):
        wanted = f"at least {least}" if most is None else f"exactly {least}" if least == most else f"{least} to {most}"
        models = f"{wanted} {'model' if wanted.endswith(' 1') else 'models'}{', the base included' if counted else ''}"
        raise RecipeProblem((*path, "models"), f"{method.name} takes {models}, and there are {there}")


def _groups(merge: Merge, layout: Layout | None, path: Path) -> tuple[str, ...] | None:
    """Return the names of the groups, or None where they are not known without the tensors."""
    for name in merge.groups:
        if name not in merge.per.groups:
            raise RecipeProblem((*path, "groups", name), "this group is used nowhere; name it in per:, or remove it")
    if layout is not None:
        try:
            return Grouping.of(merge, layout).names
        except GroupError as error:
            raise RecipeProblem((*path, "per"), str(error).removeprefix("per: ")) from None
    by_tensors = merge.per.tensor or merge.per.layers is not None
    return None if by_tensors else merge.per.groups


def _check_patterns(merge: Merge, layout: Layout, path: Path) -> None:
    for _, params, at in _owners(merge, path):
        for name, value in params.items():
            for pattern, _ in value.values if isinstance(value, ByPattern) else ():
                if not any(fnmatchcase(tensor, pattern) for tensor in layout.tensors):
                    raise RecipeProblem((*at, name, pattern), "matches no tensor of these models; remove or correct it")


Part = Scalar | Hole


def _parts(value: Value, path: Path, groups: tuple[str, ...] | None) -> Iterator[tuple[Part, Path]]:
    """Yield the scalars and holes of a value, each with its path. The points of a gradient are among them."""
    if isinstance(value, ByGroup):
        for group, item in value.values.items():
            if groups is not None and group not in groups:
                known = f"is none of the groups {', '.join(groups)}" if groups else "is a group, and per: names none"
                raise RecipeProblem((*path, group), f"{known}{nearest(group, groups)}")
            yield from _parts(item, (*path, group), groups)
    elif isinstance(value, ByPattern):
        for pattern, item in value.values:
            yield from _parts(item, (*path, pattern), groups)
    elif isinstance(value, Gradient):
        if len(value.points) < 2:
            raise RecipeProblem(path, "a gradient over depth needs at least two numbers; write the number itself")
        for index, point in enumerate(value.points):
            yield point, (*path, index)
    else:
        yield value, path


def _gene(merge: Merge, path: Path) -> str:
    """Return the name of the hole that chooses a merge's method, as a `when` names it."""
    name = merge.method.name if isinstance(merge.method, Hole) else None
    return name or ".".join(map(str, (*path, "method")))


def check_condition(part: Part, gene: str, candidates: Sequence[str], known: Sequence[str], path: Path) -> None:
    """See that a parameter which only the `known` of the candidates have exists only when `gene` chooses one of them.

    Raises RecipeProblem where it does not.
    """
    allowed = part.when.get(gene) if isinstance(part, Hole) else None
    if allowed is None or not set(known).issuperset(map(str, allowed)):
        lacking = ", ".join(name for name in candidates if name not in known)
        condition = f"when: {{{gene}: [{', '.join(known)}]}}"
        raise RecipeProblem(
            path, f"{lacking} does not have it; write it as a hole with {condition} (for a single value: one choice)"
        )


def check_value(part: Part, parameter: Parameter, path: Path) -> None:
    """See that a value, or every value of a hole, is one that a parameter takes. Raises RecipeProblem otherwise."""
    if isinstance(part, Hole) and not part.choices and not _is_number(parameter):
        raise RecipeProblem(path, f"has no low and high; its choices are {_listed(parameter)}")
    if len(path) and isinstance(path[-1], int) and not _is_number(parameter):
        raise RecipeProblem(path[:-1], f"cannot change over depth; it is one of {_listed(parameter)}")
    for value in _extremes(part):
        problem = _problem(value, parameter)
        if problem:
            raise RecipeProblem(path, problem)


def _extremes(part: Part) -> tuple[Scalar | None, ...]:
    """Return a scalar, or what a hole can be at its ends."""
    return (part,) if not isinstance(part, Hole) else part.choices or (part.low, part.high)


def _problem(value: Scalar | None, parameter: Parameter) -> str | None:
    if not _is_number(parameter):
        fits = value in parameter.choices and isinstance(value, bool) == isinstance(parameter.default, bool)
        return None if fits else f"must be one of {_listed(parameter)}, and is {_plain(value)}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return f"must be a number, and is {_plain(value)}"
    if parameter.minimum is not None and value < parameter.minimum:
        return f"must be at least {parameter.minimum:g}, and is {value:g}"
    if parameter.maximum is not None and value > parameter.maximum:
        return f"must be at most {parameter.maximum:g}, and is {value:g}"
    return None


def _unknown(name: str, owner: Owner, candidates: Sequence[Method]) -> str:
    """Say that no candidate has a parameter, and which one may be meant or where it belongs."""
    methods = " or ".join(method.name for method in candidates)
    other: Owner = "input" if owner == "merge" else "merge"
    if any(name in _declared(method, other) for method in candidates):
        return f"belongs to {_WHERE[other]}, not to {_WHERE[owner]}"
    known = sorted({known for method in candidates for known in _declared(method, owner)})
    listed = f"known are {', '.join(known)}" if known else "there are none"
    return f"{methods} has no such parameter for {_WHERE[owner]}{nearest(name, known)}; {listed}"


def _declared(method: Method, owner: Owner) -> dict[str, Parameter]:
    return {parameter.name: parameter for parameter in method.parameters if parameter.of == owner}


def _is_number(parameter: Parameter) -> bool:
    return not parameter.choices


def _listed(parameter: Parameter) -> str:
    return ", ".join(map(_plain, parameter.choices))


def _plain(value: Scalar | None) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
