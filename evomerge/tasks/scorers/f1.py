"""The scorer `f1`: how many words the answer and the reference share.

The measure of SQuAD (Rajpurkar et al., 2016): both texts become bags of words, and the score is the harmonic mean of
precision and recall over them. Words stand between white space, so it suits languages that write them so.
"""

from collections import Counter

from evomerge.recipe.settings import Settings
from evomerge.tasks.scorers.protocol import TextScorer
from evomerge.tasks.scorers.registry import scorer
from evomerge.tasks.scorers.text import composed, without_punctuation

_ARTICLES = frozenset({"a", "an", "the"})


class F1Options(Settings):
    """Harmonic mean of precision and recall over words, without case, punctuation and the articles a, an and the."""


@scorer("f1", options=F1Options)
class F1(TextScorer):
    """Words shared by answer and reference."""

    def compare(self, text: str, reference: str) -> float:
        """Return 2·precision·recall / (precision + recall); of texts without words, 1 when both are."""
        ours, theirs = words(text), words(reference)
        if not ours or not theirs:
            return float(ours == theirs)
        shared = (Counter(ours) & Counter(theirs)).total()
        return 2 * shared / (len(ours) + len(theirs))

    def key(self, text: str) -> str:
        """Return the words that are compared, in their order."""
        return " ".join(words(text))


def words(text: str) -> list[str]:
    """Return the words of a text in small letters, without punctuation and articles."""
    return [word for word in without_punctuation(composed(text, lowercase=True)).split() if word not in _ARTICLES]
