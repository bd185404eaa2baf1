"""What a merge method is: tensors in, tensor out, and what it declares about itself.

A method sees one tensor at a time: the base's, the inputs', and its parameters as plain numbers for this very tensor.
It computes in the dtype that it is given (float32 in a merge, float64 in reference tests) and touches no disk, clock or
global random state. Recipes, groups, files and storage dtypes are somebody else's business.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from evomerge.recipe.holes import Scalar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Evidence = Literal["V", "V3", "A", "R", "D"]
"""How surely a formula is known: V compared with the authors' or the common code, V3 only with a third party's, A
from a text without the details, R our reconstruction of an unstated detail, D derived and checked numerically."""


@dataclass(frozen=True, slots=True)
class TensorContext:
    """Which tensor is being merged.

    `depth` is in [0, 1] over `layers` layers; `seed` is the merge's own; `fingerprints` identify the inputs in their
    order, so that random masks belong to an expert and not to its place in the list. `whole` has what the method's
    stages found over the whole model, one for each. `shape` is the tensor's, told to mixtures, which see no tensor.
    """

    name: str
    depth: float
    layers: int
    seed: int
    fingerprints: tuple[str, ...]
    whole: "tuple[Whole, ...]" = ()
    shape: tuple[int, ...] | None = None

    @property
    def is_matrix(self) -> bool:
        """True for two dimensions or more. Raises ValueError where the shape is not told."""
        if self.shape is None:
            raise ValueError(f"the shape of {self.name} is not told to its merge method")
        return len(self.shape) > 1


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
    """A parameter that a method (or a combiner, of its ensemble or of a member) declares.

    It is one of `choices` where there are any (true and false are choices), else a number. `minimum` and `maximum`
    (both allowed) are what the formula can take; `low`, `high` and `log` are the range that a search should use
    unless a person knows better.
    """

    name: str
    of: Literal["merge", "input", "ensemble", "member"]
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


Along = Literal["tensor", "row", "column"]
"""What counts as one vector: a whole tensor, each row (first index), or each column (all other indices) of it. A tensor
of one dimension is one row, and each of its elements a column."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """A method whose result is a weighted sum of its models, with weights that follow from inner products alone.

    The vectors that are summed are, `of` models, the base (where it is there) and the inputs; `of` deltas, the base
    (where it is there) and the inputs' differences to it. `weights` takes their inner products in float64, of shape
    (vectors of the tensor, models, models), and returns weights in float64, of shape (vectors of the tensor, models):
    each vector of the result is the sum of the models' vectors times these. The products do not depend on parameters,
    so a study computes them once; what `weights` costs hardly counts. The context of both has the tensor's shape.
    """

    of: Literal["models", "deltas"]
    along: "Callable[[TensorContext, Parameters], Along]"
    weights: "Callable[[TensorContext, Parameters, NDArray[np.float64]], NDArray[np.float64]]"


class Summary(Protocol):
    """What a stage finds out about one tensor; adding two gives that of both."""

    def __add__(self, other: Any, /) -> Any:
        """Return the summary of both."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """One stage's summaries added up: over the whole model, and, when asked for, over the tensors before this one."""

    total: Summary
    preceding: "Callable[[], Summary | None]" = lambda: None

    @property
    def before(self) -> Summary | None:
        """The sum over the tensors before this one in natural order; None for the first."""
        return self.preceding()


class Stage(Protocol):
    """What has to be known of the whole model before a tensor can be merged; free of parameters, so done once a study.

    It is called for each tensor, with the results of the stages before it in `ctx.whole`.
    """

    def __call__(self, ctx: TensorContext, base: "Tensor | None", inputs: "Sequence[Tensor]", /) -> Summary:
        """Return what is to be added up."""
        ...


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
    low-rank exactly, and `mixture` for sums whose weights follow from inner products; both raise what `apply` raises.
    `stages` says, for a tensor's parameters, what must be known of the whole model first (scope model); the results
    are in `ctx.whole`.
    """

    name: str
    title: str
    needs: Needs
    parameters: tuple[Parameter, ...]
    source: str
    evidence: Evidence
    apply: Apply
    coefficients: Callable[[TensorContext, Parameters], Coefficients] | None = None
    mixture: Mixture | None = None
    stages: Callable[[Parameters], tuple[Stage, ...]] | None = None
