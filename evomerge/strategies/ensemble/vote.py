"""The combiner `vote`: the answer that most weight speaks for.

Answers of one key are one answer. A negative weight speaks against what its member says, which is worth something
where a member errs in a way that others can be warned by.
"""

from collections.abc import Sequence

from evomerge.strategies.ensemble.protocol import CombinerParameters, Reply
from evomerge.strategies.ensemble.registry import combiner
from evomerge.strategies.merge.protocol import Parameter

WEIGHT = Parameter(
    "weight",
    "member",
    1.0,
    "How much this member's answer counts; a negative number speaks against it.",
    low=-1.0,
    high=1.0,
)


@combiner(
    "vote",
    title="Weighted vote over equal answers",
    parameters=(WEIGHT,),
    source="Wang et al. 2023, Self-consistency, arXiv:2203.11171, with a weight for each member",
)
def vote(replies: Sequence[Reply | None], params: CombinerParameters) -> Reply | None:
    """Return the answer whose members' weights add up to most; of equals that of the earliest member.

    A member that is missing, or has weight 0, takes no part. Where every answer is spoken against, the least so wins;
    where nobody takes part there is no answer.
    """
    totals: dict[str, float] = {}
    first: dict[str, Reply] = {}
    for reply, weight in zip(replies, params.numbers("weight"), strict=True):
        if reply is not None and weight:
            totals[reply.key] = totals.get(reply.key, 0.0) + weight
            first.setdefault(reply.key, reply)
    return first[max(totals, key=totals.__getitem__)] if totals else None
