"""From a recipe's ensemble to a combiner's parameters: what a person wrote is checked, and defaults are filled in.

Every problem is a `RecipeProblem` that says where in the recipe it stands; who read the recipe adds file and line. As
in merges, a parameter that only some of the combiners to choose from have must be a hole that exists only `when` the
combiner is one of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from evomerge.errors import ConfigError
from evomerge.recipe.holes import Hole, Scalar
from evomerge.recipe.tree import Ensemble
from evomerge.recipe.values import ByGroup, ByPattern, Gradient, Params
from evomerge.strategies.ensemble.protocol import Combiner, CombinerParameters
from evomerge.strategies.ensemble.registry import get
from evomerge.strategies.merge.protocol import Parameter
from evomerge.strategies.merge.registry import nearest
from evomerge.strategies.merge.resolve import Path, RecipeProblem, check_condition, check_value

Owner = Literal["ensemble", "member"]

_WHERE: Mapping[Owner, str] = {"ensemble": "the ensemble itself, beside 'combine'", "member": "each of the members"}


def check_ensemble(ensemble: Ensemble) -> None:
    """Check an ensemble against its combiner, with holes or without: names of parameters, their types and bounds.

    Raises RecipeProblem for the first thing that is wrong.
    """
    candidates = _combiners(ensemble)
    chosen_by = (ensemble.combiner.name if isinstance(ensemble.combiner, Hole) else None) or "combine"
    for owner, params, at in _owners(ensemble):
        for name, value in params.items():
            known = [combiner for combiner in candidates if name in _declared(combiner, owner)]
            if not known:
                raise RecipeProblem((*at, name), _unknown(name, owner, candidates))
            if isinstance(value, Gradient | ByGroup | ByPattern):
                raise RecipeProblem((*at, name), "is one number or word here: an ensemble has no layers or groups")
            if len(known) < len(candidates):
                names = [combiner.name for combiner in known]
                check_condition(value, chosen_by, [combiner.name for combiner in candidates], names, (*at, name))
            for combiner in known:
                check_value(value, _declared(combiner, owner)[name], (*at, name))


def parameters_for(ensemble: Ensemble, combiner: Combiner) -> CombinerParameters:
    """Return an ensemble's parameters, defaults filled in.

    Raises RecipeProblem for one that the combiner does not have, and for a hole that is still open.
    """

    def filled(params: Params, owner: Owner, path: Path) -> dict[str, Scalar]:
        declared = _declared(combiner, owner)
        values: dict[str, Scalar] = {name: parameter.default for name, parameter in declared.items()}
        for name, value in params.items():
            if name not in declared:
                raise RecipeProblem((*path, name), _unknown(name, owner, (combiner,)))
            if isinstance(value, Hole | Gradient | ByGroup | ByPattern):
                raise RecipeProblem((*path, name), "is no single value; write a number, or search for one")
            values[name] = value
        return values

    members = tuple(filled(item.params, "member", ("members", index)) for index, item in enumerate(ensemble.members))
    return CombinerParameters(filled(ensemble.params, "ensemble", ()), members)


def _owners(ensemble: Ensemble) -> Iterator[tuple[Owner, Params, Path]]:
    yield "ensemble", ensemble.params, ()
    for index, item in enumerate(ensemble.members):
        yield "member", item.params, ("members", index)


def _combiners(ensemble: Ensemble) -> tuple[Combiner, ...]:
    """Return the combiners that an ensemble can have."""
    hole = ensemble.combiner
    names: Sequence[Scalar] = hole.choices if isinstance(hole, Hole) else (hole,)
    if not names:
        raise RecipeProblem(("combine",), "a combiner is a name, or a hole with choices of names")
    try:
        return tuple(get(str(name)) for name in names)
    except ConfigError as error:
        raise RecipeProblem(("combine",), str(error)) from None


def _unknown(name: str, owner: Owner, candidates: Sequence[Combiner]) -> str:
    """Say that no candidate has a parameter, and which one may be meant or where it belongs."""
    combiners = " or ".join(combiner.name for combiner in candidates)
    other: Owner = "member" if owner == "ensemble" else "ensemble"
    if any(name in _declared(combiner, other) for combiner in candidates):
        return f"belongs to {_WHERE[other]}, not to {_WHERE[owner]}"
    known = sorted({known for combiner in candidates for known in _declared(combiner, owner)})
    listed = f"known are {', '.join(known)}" if known else "there are none"
    return f"{combiners} has no such parameter for {_WHERE[owner]}{nearest(name, known)}; {listed}"


def _declared(combiner: Combiner, owner: Owner) -> dict[str, Parameter]:
    return {parameter.name: parameter for parameter in combiner.parameters if parameter.of == owner}
