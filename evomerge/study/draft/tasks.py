"""The tasks of a draft: which fields of a data file are asked and answered, and by what answers are scored."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from evomerge.errors import ConfigError
from evomerge.study.draft.words import quoted, seen_from
from evomerge.tasks.items import Item, read_items

QUESTIONS = ("question", "prompt", "input", "instruction", "problem", "text")
ANSWERS = ("answer", "reference", "target", "output", "label", "solution", "completion")
SHORT = 12
"""Characters up to which a right answer is taken for a word or number, to be given exactly."""


@dataclass(frozen=True, slots=True)
class TaskDraft:
    """What a data file tells of its task: the fields to use, a fitting scorer, the longest right answer."""

    name: str
    data: str
    question: str
    answer: str
    scorer: str
    longest: int
    items: int


def draft_tasks(data: Sequence[Path], folder: Path, question: str | None, answer: str | None) -> list[TaskDraft]:
    """Return a task for each data file. Raises ConfigError where a file's fields are not recognised."""
    tasks = [_task(path, folder, question, answer) for path in data]
    return [_renamed(task, [other.name for other in tasks[:index]]) for index, task in enumerate(tasks)]


def lines_for_weights(tasks: Sequence[TaskDraft]) -> list[str]:
    """Return the lines of tasks for models that continue a text and can be asked for likelihoods."""
    lines = ["tasks:"]
    for task in tasks:
        lines += [
            *_head(task),
            f"    prompt: {_prompt(task)}    # a Jinja template; for chat models [{{role: user, content: …}}]",
            f"    reference: {quoted(task.answer)}    # the field with the right answer",
            f"    score: {task.scorer}    # exact, numeric, contains, f1, regex, choice, likelihood, or your own",
            "    # search_by: {likelihood: {scale: probability}}    # for few items, or nearly all answers wrong",
            f"    max_tokens: {max(8, task.longest + 4)}",
        ]
    return lines


def lines_for_endpoints(tasks: Sequence[TaskDraft]) -> list[str]:
    """Return the lines of tasks for models that chat: they are told to be short, and small differences are forgiven."""
    lines = ["tasks:"]
    for task in tasks:
        short = task.scorer != "f1"
        scorer = "{exact: {lowercase: true, drop_punctuation: true}}" if task.scorer == "exact" else task.scorer
        lines += [
            *_head(task),
            f"    prompt: {_prompt(task, 'Give only the answer.' if short else '')}    # a Jinja template: one message",
            f"    reference: {quoted(task.answer)}    # the field with the right answer",
            f"    score: {scorer}    # exact, numeric, contains, f1, regex, or your own; equal answers vote as one",
            f"    max_tokens: {max(32, task.longest + 16)}    # bounds an answer's cost; more if models reason",
        ]
    return lines


def _head(task: TaskDraft) -> list[str]:
    return [f"  - name: {quoted(task.name)}", f"    data: {quoted(task.data)}"]


def _prompt(task: TaskDraft, ending: str = "") -> str:
    """Return the template that asks a field, as YAML."""
    field = task.question
    if ending:
        inside = field if field.isidentifier() else f"item[{json.dumps(field)}]"
        return json.dumps(f"{{{{{inside}}}}}\n{ending}", ensure_ascii=False)
    return json.dumps(f"{{{{{field}}}}}") if field.isidentifier() else quoted(f"{{{{item[{json.dumps(field)}]}}}}")


def _task(path: Path, folder: Path, question: str | None, answer: str | None) -> TaskDraft:
    items = read_items(path, str(path))
    asked = _field(items, path, question, QUESTIONS, "--question")
    answered = _field(items, path, answer, ANSWERS, "--answer")
    right = [text for item in items for text in _texts(item.fields[answered])]
    longest = max(map(len, right), default=0)
    scorer = "numeric" if all(map(_is_number, right)) else "exact" if longest <= SHORT else "f1"
    name = re.sub(r"[^\w .+-]|^\W+", "-", path.stem).lstrip("-") or "task"
    return TaskDraft(name, seen_from(folder, str(path)), asked, answered, scorer, longest, len(items))


def _texts(answers: Any) -> list[str]:
    """Return the right answers of an item: a field that holds a list has several."""
    return [str(answer) for answer in cast(list[Any], answers)] if isinstance(answers, list) else [str(answers)]


def _renamed(task: TaskDraft, taken: Sequence[str]) -> TaskDraft:
    """Return a task under a name that no other has, where two data files have one name."""
    again = taken.count(task.name)
    return replace(task, name=f"{task.name} {again + 1}") if again else task


def _field(items: Sequence[Item], path: Path, wanted: str | None, usual: Sequence[str], option: str) -> str:
    there = items[0].fields
    for name in [wanted] if wanted is not None else usual:
        if name in there and all(name in item.fields for item in items):
            return name
    known = items[0].field_names
    if wanted is not None:
        raise ConfigError(f"{path}: not every item has the field '{wanted}'; the first has {known}")
    raise ConfigError(f"{path}: which of the fields {known} is meant? Name it with {option}")


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True
