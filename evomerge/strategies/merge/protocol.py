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


@dataclass(frozen=True, slots=True)
class TensorContext:
    """Which tensor is being merged.

    `depth` is in [0, 1] over `layers` layers; `seed` is the merge's own; `fingerprints` identify the inputs in their order,
    so that random masks belong to an expert and not to its place in the list.
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


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that a method declares: its default and the range that a search may use."""

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
    """What a method takes: whether it uses a base, how many inputs, over what it computes, and whether their order matters."""

    base: Literal["required", "optional", "unused"]
    inputs: tuple[int, int | None]
    scope: Literal["element", "matrix", "model"] = "element"
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class Coefficients:
    """A method that is a weighted sum: result = base * base weight + sum of inputs * their weights."""

    base: float
    inputs: tuple[float, ...]


class Apply(Protocol):
    """The formula: tensors of one shape and dtype in, one of the same shape and dtype out."""

    def __call__(self, ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", params: Parameters) -> "Tensor":
        ...


@dataclass(frozen=True, slots=True)
class Method:
    """A registered method.

    `source` names the paper; `evidence` is the mark of how surely the formula is known; `coefficients` is there for weighted
    sums, which is what lets low-rank inputs stay low-rank exactly.
    """

    name: str
    title: str
    needs: Needs
    parameters: tuple[Parameter, ...]
    source: str
    evidence: str
    apply: Apply
    coefficients: Callable[[Parameters], Coefficients] | None = None
