"""The parameters that several methods share, with the ranges a search should use.

One name means one thing in every method; only defaults and ranges differ between families.
"""

from evomerge.strategies.merge.protocol import Parameter

WEIGHT = Parameter("weight", "input", 1.0, "How much this model counts.", low=0.0, high=1.0)

SIGNED_WEIGHT = Parameter(
    "weight",
    "input",
    1.0,
    "How much this model's difference to the base counts; a negative number unlearns it.",
    low=-0.5,
    high=1.5,
)

SCALE = Parameter(
    "scale", "merge", 1.0, "What the combined difference to the base is multiplied with.", low=0.1, high=1.5, log=True
)


def normalize(*, default: bool) -> Parameter:
    """Return the declaration of `normalize`, which differs between methods only in its default."""
    return Parameter("normalize", "merge", default, "Whether weights are divided by their sum.", choices=(True, False))


MERGE_FUNC = Parameter(
    "merge_func",
    "merge",
    "mean",
    "What becomes of the entries that agree with the elected sign: their weighted mean, their sum, or the largest.",
    choices=("mean", "sum", "max"),
)

RESCALE = Parameter(
    "rescale",
    "merge",
    "unbiased",
    "What is kept is divided by its chance to be kept (unbiased: right on average), or brought back to the sum of "
    "magnitudes that the tensor's differences had before (l1).",
    choices=("unbiased", "l1"),
)
