"""Looking into a study that was made before: which recipe its winner or a trial was."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.errors import ConfigError, StudyBroken
from evomerge.recipe.tree import Recipe, recipe_id
from evomerge.study.job import load_job
from evomerge.study.journal import Event, Journal
from evomerge.study.pick import Pick, pick
from evomerge.study.prepare import Prepared, check_unchanged, prepare
from evomerge.study.status import journal_of


@dataclass(frozen=True, slots=True)
class Reopened:
    """A study's prepared job and its log."""

    folder: Path
    prepared: Prepared
    events: tuple[Event, ...]

    def trial(self, number: int) -> tuple[Recipe, str]:
        """Return the recipe of a trial and a sentence about it. Raises ConfigError where there is no such trial."""
        asks = {event.trial: event for event in self.events if event.kind == "ask"}
        if number not in asks:
            there = f"it has trials 0 to {len(asks) - 1}" if asks else "it has none yet"
            raise ConfigError(f"{self.folder}: there is no trial {number}; {there}")
        recipe = self.prepared.space.decode(asks[number].data["vector"])
        return recipe, f"Trial {number} of the study {self.prepared.job.name}."

    def pick(self, wanted: Pick) -> tuple[Recipe, str]:
        """Return the recipe of the front that a rule picks, and a sentence about it.

        Raises ConfigError where there is no front, or none of it is good or cheap enough.
        """
        front = self._decision().get("front")
        objectives = self.prepared.job.settings.objectives
        if not front:
            raise ConfigError(
                f"{self.folder}: this study has one objective, so there is nothing to pick from; leave --pick out, or "
                "name several under objective: in a new study"
            )
        found = front[pick([point["objectives"] for point in front], objectives, wanted)]
        reached = ", ".join(f"{one.name} {one.words(found['objectives'][one.name])}" for one in objectives)
        note = f"Picked from the front of the study {self.prepared.job.name} by {wanted}: {found['name']}."
        return self._recipe(found), f"{note} On the select split: {reached}."

    def winner(self) -> tuple[Recipe, str]:
        """Return the recipe of the winner and a sentence about it. Raises ConfigError where there is none yet."""
        wanted = self._decision()["winner"]
        return self._recipe(wanted), f"The winner of the study {self.prepared.job.name}: {wanted['name']}."

    def _decision(self) -> Mapping[str, Any]:
        """Return the last decision about the winner. Raises ConfigError where there is none yet."""
        decided = [event.data for event in self.events if event.kind == "decision" and "winner" in event.data]
        if not decided:
            raise ConfigError(
                f"{self.folder}: this study has no winner yet; go on with `evomerge run`, or name a --trial"
            )
        return decided[-1]

    def _recipe(self, wanted: Mapping[str, Any]) -> Recipe:
        if wanted["vector"] is not None:
            return self.prepared.space.decode(wanted["vector"])
        known = {recipe_id(baseline.recipe): baseline.recipe for baseline in self.prepared.baselines}
        if wanted["recipe"] not in known:
            raise StudyBroken(f"{self.folder}: {wanted['name']} cannot be found in the journal")
        return known[wanted["recipe"]]


def reopen(folder: Path) -> Reopened:
    """Open the study in a folder for reading. Raises ConfigError where there is none or its job or models are gone."""
    with closing(Journal(journal_of(folder), read_only=True)) as journal:
        original, identity, events = journal.fact("job"), journal.fact("identity"), tuple(journal.events())
    if original is None or not Path(original).is_file():
        raise ConfigError(
            f"{folder}: its job file {original} is gone, and models are found relative to it; put it back"
        )
    prepared = prepare(load_job(Path(original)))
    check_unchanged(str(folder), identity, prepared.identity)
    return Reopened(folder, prepared, events)
