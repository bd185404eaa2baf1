"""Scorers that look at the characters of an answer: `exact` and `contains`.

Both compare texts in composed Unicode (NFC), so that an accent written in two ways is one; nothing else is changed
unless an option says so.
"""

import re
import unicodedata
from pathlib import Path

from evomerge.recipe.settings import Settings
from evomerge.tasks.scorers.protocol import Question, TextScorer
from evomerge.tasks.scorers.registry import scorer


class ExactOptions(Settings):
    """1 when the answer is the reference, else 0."""

    strip: bool = True
    """Leave out white space around the answer and the reference."""
    lowercase: bool = False
    """Take capital and small letters as the same."""
    drop_punctuation: bool = False
    """Leave out punctuation, wherever it stands."""


@scorer("exact", options=ExactOptions)
class Exact(TextScorer):
    """The answer is the reference."""

    def __init__(self, options: ExactOptions, root: Path) -> None:
        super().__init__(options, root)
        self.options = options

    def compare(self, text: str, reference: str) -> float:
        """Return 1 for the same text, else 0."""
        return float(self.key(text) == self.key(reference))

    def key(self, text: str) -> str:
        """Return the text as it is compared."""
        text = composed(text, lowercase=self.options.lowercase)
        if self.options.drop_punctuation:
            text = without_punctuation(text)
        return text.strip() if self.options.strip else text


class ContainsOptions(Settings):
    """1 when the reference stands somewhere in the answer, else 0."""

    lowercase: bool = False
    """Take capital and small letters as the same."""
    words: bool = False
    """Only as whole words: then `1` does not stand in `10`."""


@scorer("contains", options=ContainsOptions)
class Contains(TextScorer):
    """The reference stands in the answer."""

    def __init__(self, options: ContainsOptions, root: Path) -> None:
        super().__init__(options, root)
        self.options = options

    def problem(self, question: Question) -> str | None:
        """Refuse an empty reference: it stands in every answer."""
        empty = any(not reference.strip() for reference in question.references)
        return "the reference is empty, and stands in every answer" if empty else None

    def compare(self, text: str, reference: str) -> float:
        """Return 1 when the reference, without white space around it, stands in the text, else 0."""
        text, reference = self.key(text), self.key(reference)
        if not self.options.words:
            return float(reference in text)
        return float(re.search(rf"(?<!\w){re.escape(reference)}(?!\w)", text) is not None)

    def key(self, text: str) -> str:
        """Return the text as it is searched."""
        return composed(text, lowercase=self.options.lowercase).strip()


def composed(text: str, *, lowercase: bool) -> str:
    """Return the text in composed Unicode (NFC), and without difference of case where asked."""
    text = unicodedata.normalize("NFC", text)
    return unicodedata.normalize("NFC", text.casefold()) if lowercase else text


def without_punctuation(text: str) -> str:
    """Return the text without punctuation and symbols (Unicode categories P and S)."""
    return "".join(character for character in text if unicodedata.category(character)[0] not in "PS")
