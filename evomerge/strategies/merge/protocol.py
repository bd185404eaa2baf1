"""What a merge method is: tensors in, tensor out, and what it declares about itself.

A method sees one tensor at a time: the base's, the inputs', and its parameters as plain numbers for this very tensor.
It computes in the dtype that it is given (float32 in a merge, float64 in reference tests) and touches no disk, clock or
global random state. Recipes, groups, files and storage dtypes are somebody else's business.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from evomerge.recipe.holes import Scalar

if TYPE_CHECKING:
    from torch import Tensor

Evidence = Literal["V", "V3", "A", "R", "D"]
"""How surely a formula is known: V compared with the authors' or the common code, V3 only with a third party's, A
from a text without the details, R our reconstruction of an unstated detail, D derived and checked numerically."""


@dataclass(frozen=True, slots=True)
class TensorContext:
    """Which tensor is being merged.

    `depth` is in [0, 1] over `layers` layers; `seed` is the merge's own; `fingerprints` identify the inputs in their
    order, so that random masks belong to an expert and not to its place in the list.
    """

    name: str
    depth: float
    layers: int
    seed: int
    fingerprints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Parameters:
    """A method's parameters for one tensor, defaults filled in: the merge's own, and those of each input."""

    merge: Mapping[str, Scalar]
    inputs: tuple[Mapping[str, Scalar], ...]

    def number(self, name: str) -> float:
        """Return a number of the merge."""
        return float(self.merge[name])

    def flag(self, name: str) -> bool:
        """Return a yes or no of the merge."""
        return bool(self.merge[name])

    def choice(self, name: str) -> str:
        """Return a word of the merge."""
        return str(self.merge[name])

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return a number of every input, in their order."""
        return tuple(float(values[name]) for values in self.inputs)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that a method declares.

    It is one of `choices` where there are any (true and false are choices), else a number. `minimum` and `maximum`
    (both allowed) are what the formula can take; `low`, `high` and `log` are the range that a search should use
    unless a person knows better.
    """

    name: str
    of: Literal["merge", "input"]
    default: Scalar
    doc: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Scalar, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class Needs:
    """What a method takes.

    `base`: required, unused (it may stand in the recipe, and changes nothing), optional, or counted: optional, and
    one of the `inputs` where it is there (a path between two models starts at the base). `inputs` is the smallest and
    the largest number of them, None for any. `scope` is what must be seen at once: single elements (any slice of a
    tensor can be merged alone), a whole tensor, or the whole model. `ordered` methods change with the order of their
    inputs.
    """

    base: Literal["required", "optional", "unused", "counted"]
    inputs: tuple[int, int | None]
    scope: Literal["element", "tensor", "model"] = "element"
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class Coefficients:
    """A method that is a weighted sum: result = base * base weight + sum of inputs * their weights."""

    base: float
    inputs: tuple[float, ...]


class Apply(Protocol):
    """The formula: tensors of one shape and dtype in, a new one of the same shape and dtype out.

    What comes in is left as it is. Raises CandidateError for parameters that no result can be computed from.
    """

    def __call__(
        self, ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters, /
    ) -> "Tensor":
        """Return the merged tensor."""
        ...


@dataclass(frozen=True, slots=True)
class Method:
    """A registered method.

    `source` names the paper; `coefficients` is there for weighted sums, which is what lets low-rank inputs stay
    low-rank exactly; it raises what `apply` raises.
    """

    name: str
    title: str
    needs: Needs
    parameters: tuple[Parameter, ...]
    source: str
    evidence: Evidence
    apply: Apply
    coefficients: Callable[[Parameters], Coefficients] | None = None
