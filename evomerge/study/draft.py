"""Drafting a job: from models and data files to a commented YAML file that runs.

How many holes a search can afford depends on how many answers it will see: with few trials or few items the draft asks
for one weight a model, with more it lets the weights differ between attention, mlp and the rest, and then by depth.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evomerge.backends.weights.store import WeightStore
from evomerge.errors import ConfigError
from evomerge.recipe.groups import GroupError, Grouping, Layout
from evomerge.recipe.tree import Input, Merge, Per, Source
from evomerge.tasks.items import Item, read_items

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
    store = WeightStore()
    inputs = tuple(Input(Source(_from(folder, name))) for name in models)
    root = None if base is None else Source(_from(folder, base))
    merge = store.resolve(Merge("linear" if root is None else "task_arithmetic", inputs, root), folder)
    store.check(merge)
    tasks = [_task(path, folder, question, answer) for path in data]
    adapters = all(
        store.is_adapter(source.recipe) for source in _merge(merge).inputs if isinstance(source.recipe, Source)
    )
    layout = store.layout(merge)
    per = _per(len(models), trials, sum(task.items for task in tasks), layout)
    text = _write(merge=_merge(merge), written=(root, inputs), per=per, tasks=tasks, trials=trials, adapters=adapters)
    genes = len(models) * (len(Grouping(per, {}, layout).names) or 1)
    return Draft(text, f"{genes} genes for {len(models)} models, {len(tasks)} tasks, {trials} trials")


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
    longest = max(len(str(item.fields[answered])) for item in items)
    numbers = all(_is_number(str(item.fields[answered])) for item in items)
    scorer = "numeric" if numbers else "exact" if longest <= SHORT else "f1"
    return _TaskDraft(path.stem, _from(folder, str(path)), asked, answered, scorer, max(8, longest + 4), len(items))


def _field(items: Sequence[Item], path: Path, wanted: str | None, usual: Sequence[str], option: str) -> str:
    there = items[0].fields
    for name in [wanted] if wanted is not None else usual:
        if name in there and all(name in item.fields for item in items):
            return name
    known = ", ".join(there)
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
            f'    prompt: "{{{{{task.question}}}}}"    # a Jinja template; for chat models: [{{role: user, content: ...}}]',
            f"    reference: {_quoted(task.answer)}    # the field with the right answer",
            f"    score: {task.scorer}    # exact, numeric, contains, f1, regex, choice, likelihood, or your own",
            "    search_by: likelihood    # search by how likely the right answer is: far less noisy; choose by score",
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


def _quoted(text: str) -> str:
    plain = text.replace("/", "").replace(".", "").replace("-", "").replace("_", "")
    return (
        text if plain.isalnum() and not plain.isdigit() else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    )
