"""What each method of mergekit is called here, and what its parameters mean and are where they are left out.

Facts about mergekit 0.1.5. A parameter that is in no row of a method has no effect on it there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from evomerge.recipe.values import Scalar

Base = Literal["base", "start", "optional", "model"]
"""What `base_model` is to a method: its base, the model it starts from, a base if there is one, or one more model."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of mergekit's: our name for it, its value there where left out (None: it must be given).

    `words` are our words for its values where these differ; a value that is not among them cannot be expressed.
    """

    ours: str
    default: Scalar | None
    words: Mapping[Scalar, Scalar] = field(default_factory=dict[Scalar, Scalar])


@dataclass(frozen=True, slots=True)
class Method:
    """A method of mergekit's: our name for it, its parameters by their names there, and what ours needs besides.

    `at` are parameters that must be at this value, which is the only one that ours has. `apart` is a sentence about
    where the results may differ although the same is meant.
    """

    ours: str
    base: Base
    merge: Mapping[str, Parameter] = field(default_factory=dict[str, Parameter])
    models: Mapping[str, Parameter] = field(default_factory=dict[str, Parameter])
    besides: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar])
    at: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar])
    apart: str = ""


WEIGHT = Parameter("weight", 1.0)
_DENSITY = Parameter("density", 1.0)
_LAMBDA = Parameter("scale", 1.0)
_L1 = Parameter("rescale", True, {True: "l1"})


def _normalize(default: bool) -> Parameter:
    return Parameter("normalize", default)


def _agreed(default: bool) -> Parameter:
    """Return `normalize` of a method with votes: what agrees is divided by its weights, or it is not."""
    return Parameter("merge_func", default, {True: "mean", False: "sum"})


def _sum(**parameters: Parameter) -> dict[str, Parameter]:
    return {"lambda": _LAMBDA, **parameters}


def _each(**parameters: Parameter) -> dict[str, Parameter]:
    return {"weight": WEIGHT, "density": _DENSITY, **parameters}


_GAMMA = Parameter("gamma", 0.01)
_EPSILON = Parameter("epsilon", 0.15)
_PLAIN: Mapping[str, Scalar] = {"rescale": False}
_MASKS = "mergekit draws other random masks: its result is another sample."
_ALIKE = "Where changes are small (mean squares that add up to less than 1e-6) mergekit weighs all models alike."

METHODS: Mapping[str, Method] = {
    "linear": Method("linear", "model", {"normalize": _normalize(default=True)}, {"weight": WEIGHT}),
    "task_arithmetic": Method("task_arithmetic", "base", _sum(normalize=_normalize(default=False)), {"weight": WEIGHT}),
    "ties": Method("ties", "base", _sum(normalize=_agreed(default=True)), _each(), at=_PLAIN),
    "dare_ties": Method(
        "dare_ties", "base", _sum(normalize=_agreed(default=False), rescale=_L1), _each(), apart=_MASKS
    ),
    "dare_linear": Method(
        "dare_linear", "base", _sum(normalize=_normalize(default=False), rescale=_L1), _each(), apart=_MASKS
    ),
    "breadcrumbs": Method(
        "breadcrumbs", "base", _sum(normalize=_normalize(default=False)), _each(gamma=_GAMMA), at=_PLAIN
    ),
    "breadcrumbs_ties": Method(
        "breadcrumbs_ties", "base", _sum(normalize=_agreed(default=False)), _each(gamma=_GAMMA), at=_PLAIN
    ),
    "della": Method(
        "della", "base", _sum(normalize=_agreed(default=True), rescale=_L1), _each(epsilon=_EPSILON), apart=_MASKS
    ),
    "della_linear": Method(
        "della_linear",
        "base",
        _sum(normalize=_normalize(default=False), rescale=_L1),
        _each(epsilon=_EPSILON),
        apart=_MASKS,
    ),
    "slerp": Method("slerp", "start", {"t": Parameter("t", None)}),
    "nuslerp": Method(
        "nuslerp",
        "optional",
        {"nuslerp_flatten": Parameter("flatten", True), "nuslerp_row_wise": Parameter("row_wise", False)},
        {"weight": WEIGHT},
    ),
    "multislerp": Method(
        "multislerp",
        "optional",
        {"normalize_weights": Parameter("normalize", True)},
        {"weight": WEIGHT},
        at={"eps": 1e-8},
    ),
    "karcher": Method("karcher", "model", {"max_iter": Parameter("max_iter", 10), "tol": Parameter("tol", 1e-5)}),
    "model_stock": Method(
        "model_stock", "base", {"filter_wise": Parameter("filter_wise", False)}, besides={"clamp": False}
    ),
    "sce": Method("sce", "base", {"select_topk": Parameter("select_topk", 1.0)}, apart=_ALIKE),
    "nearswap": Method("nearswap", "base", {"t": Parameter("t", None)}),
    "arcee_fusion": Method("arcee_fusion", "base"),
    "ram": Method("ram", "base", {"epsilon": Parameter("epsilon", 1e-5)}),
    "ramplus_tl": Method(
        "ram_plus",
        "base",
        {"r": Parameter("gain", 0.1), "alpha": Parameter("limit", 0.2), "epsilon": Parameter("epsilon", 1e-5)},
    ),
}  # fmt: skip
"""All but `passthrough`, which is a stack and no method here."""

PASSTHROUGH = "passthrough"
SCALE = Parameter("weight", 1.0)
"""What passthrough multiplies all tensors with: the weight of a sum of one model that is not normalized."""

HARMLESS: Mapping[str, str] = {"int8_mask": "it only saves memory there"}
"""Parameters of any method that do not change the result."""
EVERY = frozenset(
    {name for method in METHODS.values() for name in (*method.merge, *method.models, *method.at)} | {"scale"}
)  # fmt: skip
"""Every parameter that some method of mergekit has."""
