"""The scorer `python`: a person's own function.

The function is imported from the job's folder (or from an installed package) and called in this process: it is the
user's own code, and runs with the user's own rights. A job from somebody else that names one is a program from somebody
else.
"""

import copy
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, SupportsFloat

from pydantic import field_validator

from evomerge.errors import ConfigError
from evomerge.exchange import Answer
from evomerge.recipe.code import code_hash, is_code_name, load
from evomerge.recipe.settings import Settings
from evomerge.tasks.scorers.protocol import Question, TextScorer, generated
from evomerge.tasks.scorers.registry import scorer


class PythonOptions(Settings):
    """What a function of your own returns, from 0 to 1.

    It is called as `score(item, reference, text)`: the item's fields as a dict, the reference (None where the task has
    none; with several accepted answers it is called for each, and the best counts) and the generated text.
    """

    function: str
    """Where the function is: `my.module:score`, imported with the job's folder on the path (while it is imported, so
    its own imports belong at the module's top)."""

    @field_validator("function")
    @classmethod
    def _names_a_function(cls, name: str) -> str:
        if not is_code_name(name):
            raise ValueError(f"{name!r} names no function; write module and function as my.module:score")
        return name


@scorer("python", options=PythonOptions, main="function")
class Python(TextScorer):
    """A function's value."""

    needs_reference: bool = False

    def __init__(self, options: PythonOptions, root: Path) -> None:
        super().__init__(options, root)
        self.name = options.function
        self.function = _function(options.function, root)
        self.code = code_hash(self.function)

    def score(self, question: Question, answer: Answer) -> float:
        """Return the function's value, the best one over the accepted answers.

        Raises ConfigError, naming the function and the item, when it raises or returns no number from 0 to 1.
        """
        text = generated(question, answer)
        return max(self._call(question, reference, text) for reference in question.references or (None,))

    def _call(self, question: Question, reference: str | None, text: str) -> float:
        fields = copy.deepcopy(dict(question.item.fields))
        try:
            value = self.function(fields, reference, text)
        except Exception as error:
            # The function is somebody else's code and may raise anything; the sentence has to name it and the item.
            raise ConfigError(f"{self.name} raised {type(error).__name__} at {question.item.where}: {error}") from error
        if inspect.iscoroutine(value):
            value.close()
            raise ConfigError(f"{self.name} is an async function; a score is computed by a plain one")
        number = float(value) if isinstance(value, SupportsFloat) else math.nan
        if not 0 <= number <= 1:
            raise ConfigError(
                f"{self.name} returned {value!r} at {question.item.where}; a score is a number from 0 to 1"
            )
        return number


def _function(name: str, root: Path) -> Callable[..., Any]:
    function = load(name, root)
    if not callable(function):
        raise ConfigError(f"{name} is no function, but of type {type(function).__name__}; name a function")
    return function
