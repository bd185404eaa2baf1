"""The scorer `regex`: a pattern finds the part of an answer that counts.

Patterns are Python's. They come from the person who wrote the job and are run as they are: one that needs exponential
time on some text takes it.
"""

import re
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from evomerge.exchange import Answer
from evomerge.recipe.settings import Settings
from evomerge.tasks.scorers.protocol import Question, TextScorer, generated
from evomerge.tasks.scorers.registry import scorer


class RegexOptions(Settings):
    """1 when what the pattern finds in the answer is the reference, else 0. Nothing found is a wrong answer."""

    pattern: str
    """A Python regular expression, searched anywhere in the answer; `(?i)` in front ignores case."""
    group: int | str | None = None
    """Number or name of the group that is compared; left out: the first group, or all that was found."""
    take: Literal["first", "last"] = "first"
    """Which of several places that the pattern finds counts."""
    compare: bool = True
    """False: the answer is right when the pattern is found at all, and no reference is needed."""

    @model_validator(mode="after")
    def _compiles(self) -> "RegexOptions":
        try:
            pattern = re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"{self.pattern!r} is not a regular expression: {error}") from None
        known = [*range(pattern.groups + 1), *pattern.groupindex]
        if self.group is not None and self.group not in known:
            raise ValueError(f"the pattern has no group {self.group!r}; it has {', '.join(map(repr, known))}")
        return self


@scorer("regex", options=RegexOptions, main="pattern")
class Regex(TextScorer):
    """What the pattern finds is the reference."""

    def __init__(self, options: RegexOptions, root: Path) -> None:
        super().__init__(options, root)
        self.options = options
        self.pattern = re.compile(options.pattern)
        self.group = options.group if options.group is not None else min(self.pattern.groups, 1)
        self.needs_reference = options.compare

    def score(self, question: Question, answer: Answer) -> float:
        """Return 1 for a text in which the right thing is found, else 0."""
        if self.options.compare:
            return super().score(question, answer)
        return float(self.pattern.search(generated(question, answer)) is not None)

    def compare(self, text: str, reference: str) -> float:
        """Return 1 when what is found is the reference, both without white space around them, else 0."""
        found = self._found(text)
        return float(found is not None and found == reference.strip())

    def key(self, text: str) -> str:
        """Return what is found, without white space around it; empty where nothing is."""
        return self._found(text) or ""

    def _found(self, text: str) -> str | None:
        places = list(self.pattern.finditer(text))
        if not places:
            return None
        found = places[0 if self.options.take == "first" else -1][self.group]
        return None if found is None else found.strip()
