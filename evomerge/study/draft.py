"""Drafting a job: from models and data files to a commented YAML file that runs.

How many holes a search can afford depends on how many answers it will see: with few trials or few items the draft asks
for one weight a model, with more it lets the weights differ between attention, mlp and the rest, and then by depth.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from evomerge.backends.weights.store import WeightStore
from evomerge.errors import ConfigError
from evomerge.recipe.groups import GroupError, Grouping, Layout
from evomerge.recipe.reading import parse_yaml
from evomerge.recipe.tree import Input, Merge, Per, Source
from evomerge.study.job import JobSettings
from evomerge.tasks.items import Item, read_items
from evomerge.tasks.task import load_task

QUESTIONS = ("question", "prompt", "input", "instruction", "problem", "text")
ANSWERS = ("answer", "reference", "target", "output", "label", "solution", "completion")
TRIALS_A_GENE = 8
"""Trials that a gene needs before a search can be expected to find its value."""
ITEMS_FOR_GROUPS = 50
"""Items in the search split below which several genes a model would only fit noise."""
SHORT = 12
"""Characters up to which a right answer is taken for a word or number, to be given exactly."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A job's text, and one line about what was chosen."""

    text: str
    summary: str


@dataclass(frozen=True, slots=True)
class _TaskDraft:
    name: str
    data: str
    question: str
    answer: str
    scorer: str
    max_tokens: int
    items: int


def draft(
    models: Sequence[str],
    data: Sequence[Path],
    *,
    base: str | None,
    question: str | None,
    answer: str | None,
    trials: int,
    folder: Path,
) -> Draft:
    """Return a job that will stand in `folder`.

    Raises ConfigError where models do not fit together or a data file's fields are not recognised.
    """
    _refuse_endpoints([*models, *([] if base is None else [base])])
    store = WeightStore()
    inputs = tuple(Input(Source(_from(folder, name))) for name in models)
    root = _base_of(inputs, store, folder) if base is None else Source(_from(folder, base))
    if root is None and len(inputs) == 1:
        raise ConfigError(f"{models[0]}: one model alone leaves nothing to search; name another, or its --base")
    merge = store.resolve(Merge("linear" if root is None else "task_arithmetic", inputs, root), folder)
    store.check(merge)
    tasks = [_task(path, folder, question, answer) for path in data]
    tasks = [_renamed(task, [other.name for other in tasks[:index]]) for index, task in enumerate(tasks)]
    adapters = all(
        store.is_adapter(source.recipe) for source in _merge(merge).inputs if isinstance(source.recipe, Source)
    )
    layout = store.layout(merge)
    per = _per(len(models), trials, sum(task.items for task in tasks), layout)
    text = _write(merge=_merge(merge), written=(root, inputs), per=per, tasks=tasks, trials=trials, adapters=adapters)
    settings = parse_yaml(text, "the drafted job").parse(JobSettings)
    for task in settings.tasks:
        load_task(task, folder, settings.search.seed, settings.splits)
    genes = len(models) * (len(Grouping(per, {}, layout).names) or 1)
    return Draft(
        text, f"{_count(genes, 'gene')} for {_count(len(models), 'model')}, {_count(len(tasks), 'task')}, "
        f"{_count(trials, 'trial')}",
    )  # fmt: skip


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _refuse_endpoints(names: Sequence[str]) -> None:
    for name in names:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name):
            raise ConfigError(
                f"{name}: this version searches models in folders, adapters and hub ids, not endpoints; name those"
            )


def _base_of(inputs: Sequence[Input], store: WeightStore, folder: Path) -> Source | None:
    """Return the base that the first model's own configuration names, if that model is an adapter."""
    alone = store.resolve(inputs[0].recipe, folder)
    if not isinstance(alone, Merge) or not isinstance(alone.base, Source):
        return None
    return Source(_from(folder, alone.base.model), alone.base.revision)


def _merge(recipe: object) -> Merge:
    if not isinstance(recipe, Merge):
        raise TypeError("a draft is always a merge")
    return recipe


def _from(folder: Path, name: str) -> str:
    """Write a path as it is seen from the job's folder; a hub id stays."""
    path = Path(name)
    if not path.exists():
        return name
    relative = os.path.relpath(path.absolute(), folder)
    return relative if relative.startswith(".") else f"./{relative}"


def _per(models: int, trials: int, items: int, layout: Layout) -> Per:
    """Return the finest grouping whose genes the trials and items can tell apart."""
    affordable = trials // TRIALS_A_GENE if items * 2 // 5 >= ITEMS_FOR_GROUPS else 0
    for candidate in (Per(groups=("attention", "mlp", "rest"), layers=4), Per(groups=("attention", "mlp", "rest"))):
        try:
            names = Grouping(candidate, {}, layout).names
        except GroupError:
            continue
        if models * len(names) <= affordable:
            return candidate
    return Per()


def _task(path: Path, folder: Path, question: str | None, answer: str | None) -> _TaskDraft:
    items = read_items(path, str(path))
    asked = _field(items, path, question, QUESTIONS, "--question")
    answered = _field(items, path, answer, ANSWERS, "--answer")
    right = [text for item in items for text in _texts(item.fields[answered])]
    longest = max(map(len, right), default=0)
    scorer = "numeric" if all(map(_is_number, right)) else "exact" if longest <= SHORT else "f1"
    name = re.sub(r"[^\w .+-]|^\W+", "-", path.stem).lstrip("-") or "task"
    return _TaskDraft(name, _from(folder, str(path)), asked, answered, scorer, max(8, longest + 4), len(items))


def _texts(answers: Any) -> list[str]:
    """Return the right answers of an item: a field that holds a list has several."""
    return [str(answer) for answer in cast(list[Any], answers)] if isinstance(answers, list) else [str(answers)]


def _renamed(task: _TaskDraft, taken: Sequence[str]) -> _TaskDraft:
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


def _write(
    *,
    merge: Merge,
    written: tuple[Source | None, Sequence[Input]],
    per: Per,
    tasks: Sequence[_TaskDraft],
    trials: int,
    adapters: bool,
) -> str:
    base, inputs = written
    low, high = (-0.5, 1.5) if merge.method == "task_arithmetic" else (0.0, 1.0)
    start = round(1 / len(inputs), 2)
    lines = [
        "# A search for the best merge of these models; every {low, high} is a hole that the search fills.",
        "# Check it with `evomerge check`, run it with `evomerge run`; the reference lists every key.",
        "recipe:",
        f"  method: {merge.method}    # see `evomerge methods`",
    ]
    if base is not None:
        lines.append(f"  base: {_quoted(base.model)}")
    lines.append("  models:    # a weight below 0 turns a model's change around" if low < 0 else "  models:")
    for item in inputs:
        model = item.recipe.model if isinstance(item.recipe, Source) else ""
        lines.append(f"    - {{model: {_quoted(model)}, weight: {{low: {low:g}, high: {high:g}, start: {start:g}}}}}")
    if per.groups:
        groups = ", ".join(per.groups)
        value = f"[{groups}]" if per.layers is None else f"{{layers: {per.layers}, groups: [{groups}]}}"
        lines.append(f"  per: {value}    # one gene for each of these groups of tensors")
    lines.append("tasks:")
    for task in tasks:
        lines += [
            f"  - name: {_quoted(task.name)}",
            f"    data: {_quoted(task.data)}",
            f"    prompt: {_prompt(task.question)}    # a Jinja template; for chat models [{{role: user, content: …}}]",
            f"    reference: {_quoted(task.answer)}    # the field with the right answer",
            f"    score: {task.scorer}    # exact, numeric, contains, f1, regex, choice, likelihood, or your own",
            "    # search_by: {likelihood: {scale: probability}}    # for few items, or nearly all answers wrong",
            f"    max_tokens: {task.max_tokens}",
        ]
    lines += [
        "search:",
        "  strategy: cma",
        f"  trials: {trials}",
        "  seed: 0",
        "backend: {kind: local}    # transformers in this process",
        "# budget: {hours: 8}    # stop early enough to choose and test the winner within this time",
        f"# The result is {'an adapter' if adapters else 'a checkpoint'} in studies/, with a report.",
    ]
    return "\n".join(lines) + "\n"


def _prompt(field: str) -> str:
    """Return the template that asks a field, as YAML."""
    return json.dumps(f"{{{{{field}}}}}") if field.isidentifier() else _quoted(f"{{{{item[{json.dumps(field)}]}}}}")


def _quoted(text: str) -> str:
    """Write a text as YAML, without quotes where none are needed."""
    plain = re.fullmatch(r"(\.{1,2}/)*[A-Za-z][\w./-]*", text) and text.lower() not in {"true", "false", "null"}
    return text if plain else json.dumps(text, ensure_ascii=False)
