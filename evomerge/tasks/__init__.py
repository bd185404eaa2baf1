"""Tasks: items, a prompt and a scorer, in three disjoint splits. `load_task` makes one from what a job says."""

from evomerge.tasks.items import Item, read_items
from evomerge.tasks.scorers import Question, Scorer, ScorerSettings, TextScorer, scorer
from evomerge.tasks.settings import SPLITS, DataFiles, PromptMessage, Split, SplitSizes, TaskSettings
from evomerge.tasks.task import Score, Task, load_task

__all__ = [
    "SPLITS",
    "DataFiles",
    "Item",
    "PromptMessage",
    "Question",
    "Score",
    "Scorer",
    "ScorerSettings",
    "Split",
    "SplitSizes",
    "Task",
    "TaskSettings",
    "TextScorer",
    "load_task",
    "read_items",
    "scorer",
]
