"""Scorers: what one answer is worth on one item. One file a family; each scorer is a class with the decorator `scorer`.

Importing this package registers the scorers of the house; those of other packages are found through the entry points
"evomerge.scorers" when a job names them.
"""

from evomerge.tasks.scorers import choice, f1, numeric, python, regex, text
from evomerge.tasks.scorers.protocol import Question, Scorer, TextScorer
from evomerge.tasks.scorers.registry import ScorerSettings, known, scorer

__all__ = [
    "Question",
    "Scorer",
    "ScorerSettings",
    "TextScorer",
    "choice",
    "f1",
    "known",
    "numeric",
    "python",
    "regex",
    "scorer",
    "text",
]
