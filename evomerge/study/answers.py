"""How the answers of an ensemble are compared, and generated where a client does not say: what serving has to know.

A vote counts equal answers, and what is equal is the scorer's to say: to `numeric`, `1,000` and `1e3` are one answer.
The scorers belong to the tasks of a job, so an exported ensemble carries what they mean by it, under `answers:`.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, Field

from evomerge.exchange import Sampling
from evomerge.recipe.mergekit.read import is_mergekit
from evomerge.recipe.reading import read_yaml
from evomerge.recipe.settings import Settings
from evomerge.tasks.scorers import ScorerSettings
from evomerge.tasks.settings import TaskSettings, Text

T = TypeVar("T")
EXACT = ScorerSettings.model_validate("exact")
_OF_CODE = frozenset({"python"})
"""Scorers that live in a job's folder; to them, texts are equal as they are to `exact`."""
_OF_LIKELIHOODS = frozenset({"choice", "likelihood"})
"""Scorers of given texts, which are equal where they are the same."""


class AnswerSettings(Settings):
    """How answers are compared, and how they are generated where a client does not say."""

    equal: ScorerSettings = EXACT
    """The scorer to which two answers may be the same, with its options: a vote counts what is the same as one."""
    tasks: dict[str, ScorerSettings] = Field(default_factory=dict[str, ScorerSettings])
    """The same for questions of one task, where tasks differ: a request says `metadata: {task: NAME}`."""
    max_tokens: int = Field(default=1024, ge=1)
    """Length at which an answer is cut."""
    temperature: float = Field(default=0.0, ge=0)
    """0 takes the likeliest token; above it, answers are drawn."""
    stop: tuple[Text, ...] = ()
    """Texts that end an answer and are not part of it."""

    @property
    def sampling(self) -> Sampling:
        """How answers are generated."""
        return Sampling(max_tokens=self.max_tokens, temperature=self.temperature, stop=self.stop)

    def keys(self, root: Path, task: str | None) -> Callable[[str], str]:
        """Return the function that gives equal answers one key, for a task of this name or in general."""
        return self.tasks.get(task or "", self.equal).make(root).key

    def to_plain(self) -> dict[str, Any]:
        """Return the settings as they are written in YAML."""
        plain = self.model_dump(mode="json", exclude={"tasks"})
        return plain | ({"tasks": self.model_dump(mode="json")["tasks"]} if self.tasks else {})


class AnswersFile(Settings):
    """A file that may say how answers are compared, or hold the tasks from which that follows."""

    model_config = ConfigDict(extra="ignore")

    answers: AnswerSettings | None = None
    """How answers are compared."""
    tasks: list[TaskSettings] = Field(default_factory=list[TaskSettings])
    """The tasks of a job."""


def answers_of(tasks: Sequence[TaskSettings]) -> AnswerSettings:
    """Return how answers to these tasks are compared and generated: as all of them say, or else by each task's name.

    Where tasks differ, a text is by default equal to one that is the same, no answer is cut before the longest that a
    task allows, nothing is drawn, and nothing but its own end ends an answer.
    """
    if not tasks:
        return AnswerSettings()
    scorers = {task.name: _spoken(task.score) for task in tasks}
    common = _common(scorers.values())
    return AnswerSettings(
        equal=common or EXACT,
        tasks={} if common else scorers,
        max_tokens=max(task.max_tokens for task in tasks),
        temperature=_common(task.temperature for task in tasks) or 0.0,
        stop=_common(task.stop for task in tasks) or (),
    )


def load_answers(path: Path) -> AnswerSettings:
    """Return what a file of a recipe says under `answers:`, or what follows from the tasks of a job; else defaults.

    Raises ConfigError naming file, line and key.
    """
    if is_mergekit(path):
        return AnswerSettings()
    file = read_yaml(path).parse(AnswersFile)
    return answers_of(file.tasks) if file.answers is None else file.answers


def _spoken(scorer: ScorerSettings) -> ScorerSettings:
    return EXACT if scorer.name in _OF_CODE | _OF_LIKELIHOODS else scorer


def _common(values: Iterable[T]) -> T | None:
    """Return what all are, or None where they differ."""
    first, *others = values
    return first if all(other == first for other in others) else None
