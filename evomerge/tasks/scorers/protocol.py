"""What a scorer is: it says what has to be asked about an item, and what the answer is worth.

A scorer is a pure function of the question and the answer. It never sees a failed request: an answer that is missing is
counted as missing before any scorer is asked, and never as a wrong one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from evomerge.errors import BackendError
from evomerge.exchange import Answer, Prompt
from evomerge.tasks.items import Item

Unit = Literal["share", "nats"]
"""What scores are measured in: a share of right answers from 0 to 1, or log-probability in nats, which is at most 0."""


@dataclass(frozen=True, slots=True)
class Question:
    """An item with its templates filled in: the prompt, the accepted answers and, where there are any, choices."""

    item: Item
    prompt: Prompt
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()


class Scorer(Protocol):
    """What one answer to a question is worth. Made from its options and the job's folder; a base is `TextScorer`."""

    unit: Unit
    needs_reference: bool
    needs_choices: bool
    code: str
    """A hash of a person's own code that the scores depend on; empty where there is none."""

    def problem(self, question: Question) -> str | None:
        """Return what is wrong with a question for this scorer, as the end of a sentence, before anything is asked."""
        ...

    def continuations(self, question: Question) -> tuple[str, ...]:
        """Return the texts whose likelihood after the prompt is to be judged; empty where a text is to be generated."""
        ...

    def score(self, question: Question, answer: Answer) -> float:
        """Return the score of an answer that is there, in the scorer's unit.

        Raises BackendError for an answer to something else than was asked, CandidateError for one that only a broken
        model gives (a log-probability that is no number).
        """
        ...

    def key(self, text: str) -> str:
        """Return what stands for an answer when answers are counted: equal for texts that mean the same here."""
        ...


class TextScorer:
    """Base of scorers that compare a generated text with each accepted answer; the best comparison counts."""

    unit: Unit = "share"
    needs_reference: bool = True
    needs_choices: bool = False
    code: str = ""

    def __init__(self, options: Any, root: Path) -> None:
        self.options = options
        self.root = root

    def compare(self, text: str, reference: str) -> float:
        """Return how well a text agrees with one accepted answer, from 0 to 1."""
        raise NotImplementedError

    def problem(self, question: Question) -> str | None:
        """Accept every question; a scorer that cannot use some references says so here."""
        del question
        return None

    def continuations(self, question: Question) -> tuple[str, ...]:
        """Ask for a text."""
        del question
        return ()

    def score(self, question: Question, answer: Answer) -> float:
        """Return the best comparison of the text with an accepted answer."""
        text = generated(question, answer)
        return max(self.compare(text, reference) for reference in question.references)

    def key(self, text: str) -> str:
        """Return the text without the white space around it."""
        return text.strip()


def generated(question: Question, answer: Answer) -> str:
    """Return the text of an answer. Raises BackendError when there is none although nothing failed."""
    if answer.text is None:
        raise BackendError(f"{question.item.where}: the backend gave neither a text nor a failure")
    return answer.text
