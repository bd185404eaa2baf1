"""What a study's model computes in: it stays the same, as scores in two precisions cannot be compared."""

import asyncio

from evomerge.backends.protocol import Backend, Unsupported
from evomerge.errors import StudyChanged
from evomerge.recipe.tree import Recipe
from evomerge.study.journal import Journal


async def check_dtype(name: str, recipe: Recipe, backend: Backend, journal: Journal) -> None:
    """Raise StudyChanged where `recipe` would be computed in another dtype than what the journal has scores of.

    `name` is the study's, for the message. A backend that does not know its dtype is not asked further.
    """
    placement = await asyncio.to_thread(backend.plan, recipe)
    now = None if isinstance(placement, Unsupported) else placement.dtype
    before = journal.fact("dtype")
    if before is None or not journal.count_scores():
        journal.set_fact("dtype", now)
        journal.commit()
    elif now not in (None, before):
        raise StudyChanged(
            f"{name}: its scores were computed in {before}, and the model would now compute in {now}, so they cannot "
            f"be compared; write `dtype: {before}` under backend:, or start a new study with --study"
        )
