"""Scorers that judge by likelihood, without generating: `choice` and `likelihood`.

Both need a backend that can say how likely a given continuation is. A log-probability that is not a finite number is
the mark of a broken merge, so the candidate is refused rather than scored.
"""

import math
from pathlib import Path
from typing import Literal

from evomerge.errors import BackendError, CandidateError
from evomerge.exchange import Answer, Likelihood
from evomerge.recipe.settings import Settings
from evomerge.tasks.scorers.protocol import Question, Unit
from evomerge.tasks.scorers.registry import scorer


class ChoiceOptions(Settings):
    """1 when the likeliest of the item's choices is the reference, else 0. Of equals the first counts."""

    normalize: Literal["none", "tokens", "characters"] = "none"
    """Divide each choice's log-probability by its length, tokens or characters, to be fair to long ones."""
    prefix: str = ""
    """Text between the prompt and each choice, as in `" "` after a prompt that ends in a word."""


class LikelihoodOptions(Settings):
    """Mean log-probability per token of the reference after the prompt, in nats: at most 0, and higher is better."""

    scale: Literal["log", "probability"] = "log"
    """`log`: in nats. `probability`: its exponential, the geometric mean of the tokens' probabilities, from 0 to 1: an
    answer that is surely wrong counts 0 and no less, so that a few of them cannot outweigh all others."""
    prefix: str = ""
    """Text between the prompt and the reference, as in `" "` after a prompt that ends in a word."""


class _Judged:
    """What scorers have in common that ask for likelihoods."""

    needs_reference: bool = True
    code: str = ""

    def key(self, text: str) -> str:
        """Return the text without the white space around it."""
        return text.strip()


@scorer("choice", options=ChoiceOptions)
class Choice(_Judged):
    """The likeliest choice is the reference."""

    unit: Unit = "share"
    needs_choices: bool = True

    def __init__(self, options: ChoiceOptions, root: Path) -> None:
        del root
        self.options = options

    def problem(self, question: Question) -> str | None:
        """Refuse fewer than two choices, an empty one, and a reference that is none of them."""
        choices = [self.key(choice) for choice in question.choices]
        if len(choices) < 2:
            return f"a choice needs at least two choices, and there are {len(choices)}"
        if "" in choices:
            return f"choice {choices.index('') + 1} is empty"
        stranger = next((text for text in question.references if self.key(text) not in choices), None)
        if stranger is None:
            return None
        return (
            f"the reference {stranger!r} is none of the choices ({', '.join(map(repr, choices))}); "
            'where it is a position, turn it into the choice: reference: "{{ choices[answer] }}"'
        )

    def continuations(self, question: Question) -> tuple[str, ...]:
        """Return every choice, in the item's order."""
        return tuple(self.options.prefix + choice for choice in question.choices)

    def score(self, question: Question, answer: Answer) -> float:
        """Return 1 when the likeliest choice is a reference, else 0."""
        values = [
            likelihood.logprob / self._length(likelihood, choice)
            for likelihood, choice in zip(
                judged(question, answer, len(question.choices)), question.choices, strict=True
            )
        ]
        chosen = self.key(question.choices[values.index(max(values))])
        return float(any(chosen == self.key(reference) for reference in question.references))

    def _length(self, likelihood: Likelihood, choice: str) -> int:
        match self.options.normalize:
            case "tokens":
                return likelihood.tokens
            case "characters":
                return len(choice)
            case "none":
                return 1


@scorer("likelihood", options=LikelihoodOptions)
class ReferenceLikelihood(_Judged):
    """How likely the reference is."""

    needs_choices: bool = False

    def __init__(self, options: LikelihoodOptions, root: Path) -> None:
        del root
        self.options = options
        self.unit: Unit = "nats" if options.scale == "log" else "share"

    def problem(self, question: Question) -> str | None:
        """Refuse an empty reference: it has no tokens."""
        empty = any(not reference for reference in question.references)
        return "the reference is empty, and has no likelihood" if empty else None

    def continuations(self, question: Question) -> tuple[str, ...]:
        """Return every accepted answer."""
        return tuple(self.options.prefix + reference for reference in question.references)

    def score(self, question: Question, answer: Answer) -> float:
        """Return the reference's mean log-probability per token (nats), or its exponential; the likeliest one's."""
        likelihoods = judged(question, answer, len(question.references))
        best = max(likelihood.logprob / likelihood.tokens for likelihood in likelihoods)
        return best if self.unit == "nats" else min(math.exp(best), 1.0)


def judged(question: Question, answer: Answer, wanted: int) -> tuple[Likelihood, ...]:
    """Return an answer's likelihoods, all of them finite.

    Raises BackendError when there are not as many as were asked for, CandidateError when one is not a number.
    """
    found = answer.likelihoods
    if len(found) != wanted or any(likelihood.tokens < 1 for likelihood in found):
        raise BackendError(
            f"{question.item.where}: the backend judged {len(found)} continuations and was asked for {wanted}"
        )
    broken = next((likelihood.logprob for likelihood in found if not math.isfinite(likelihood.logprob)), None)
    if broken is not None:
        raise CandidateError(
            f"{question.item.where}: the model gives a log-probability of {broken}; its weights are broken"
        )
    return found
