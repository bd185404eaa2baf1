"""What a finished study leaves in its folder: the winner's model, written whole or not at all.

A model that is there already is left as it is; exports that were cut off are cleared away first.
"""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

from evomerge.backends.api.ledger import LEDGER
from evomerge.recipe.tree import Recipe
from evomerge.study.journal import Journal
from evomerge.study.prepare import Prepared
from evomerge.study.result import Contender

_DATABASES = ("journal.db", LEDGER)
STUDY_FILES = ("job.yaml", *(f"{name}{end}" for name in _DATABASES for end in ("", "-shm", "-wal")), "lock")
"""What a study's folder holds beside the merged model and the report."""
PARTIAL = ".merged.*.partial"
"""Exports that were cut off, as glob finds them in a study's folder."""


async def deliver(
    journal: Journal, prepared: Prepared, winner: Contender, merged: Path, *, card: str, begins: Callable[[], None]
) -> None:
    """Write the winner's model to `merged`, unless it is there; `begins` is called before something is written.

    In a thread, so that signals are heard meanwhile.
    """
    if journal.fact("exported") == winner.recipe_id and await asyncio.to_thread(merged.is_dir):
        return
    begins()
    journal.set_fact("exported", None)
    journal.commit()
    await asyncio.to_thread(_write, prepared, winner.recipe, merged, card)
    journal.set_fact("exported", winner.recipe_id)
    journal.commit()


def _write(prepared: Prepared, recipe: Recipe, merged: Path, card: str) -> None:
    for left in (merged, *merged.parent.glob(PARTIAL)):
        if left.is_dir():
            shutil.rmtree(left)
    prepared.export(recipe, merged, card=card)


def finish(journal: Journal, elapsed: float) -> None:
    """Journal once that everything a study was to do is done."""
    last = max(journal.events(), key=lambda event: event.number)
    if not last.data.get("finished"):
        journal.append("decision", None, {"finished": True, "elapsed": round(elapsed, 3)})
    journal.commit()
