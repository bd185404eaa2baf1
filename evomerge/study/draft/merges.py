"""Drafting a merge, from models and data files.

How many holes a search can afford depends on how many answers it will see: with few trials or few items the draft asks
for one weight a model, with more it lets the weights differ between attention, mlp and the rest, and then by depth.
"""

from collections.abc import Sequence
from pathlib import Path

from evomerge.backends.weights.store import WeightStore
from evomerge.errors import ConfigError
from evomerge.recipe.groups import GroupError, Grouping, Layout
from evomerge.recipe.tree import Input, Merge, Per, Source
from evomerge.study.draft.tasks import TaskDraft, draft_tasks, lines_for_weights
from evomerge.study.draft.words import Draft, count, drafted, quoted, seen_from

TRIALS_A_GENE = 8
"""Trials that a gene needs before a search can be expected to find its value."""
ITEMS_FOR_GROUPS = 50
"""Items in the search split below which several genes a model would only fit noise."""


def draft_merge(
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
    inputs = tuple(Input(Source(seen_from(folder, name))) for name in models)
    root = _base_of(inputs, store, folder) if base is None else Source(seen_from(folder, base))
    if root is None and len(inputs) == 1:
        raise ConfigError(f"{models[0]}: one model alone leaves nothing to search; name another, or its --base")
    merge = store.resolve(Merge("linear" if root is None else "task_arithmetic", inputs, root), folder)
    store.check(merge)
    tasks = draft_tasks(data, folder, question, answer)
    adapters = all(
        store.is_adapter(source.recipe) for source in _merge(merge).inputs if isinstance(source.recipe, Source)
    )
    layout = store.layout(merge)
    per = _per(len(models), trials, sum(task.items for task in tasks), layout)
    lines = _lines(merge=_merge(merge), written=(root, inputs), per=per, tasks=tasks, trials=trials, adapters=adapters)
    genes = len(models) * (len(Grouping(per, {}, layout).names) or 1)
    return drafted(lines, folder, [f"{count(genes, 'gene')} for {count(len(models), 'model')}"])


def _base_of(inputs: Sequence[Input], store: WeightStore, folder: Path) -> Source | None:
    """Return the base that the first model's own configuration names, if that model is an adapter."""
    alone = store.resolve(inputs[0].recipe, folder)
    if not isinstance(alone, Merge) or not isinstance(alone.base, Source):
        return None
    return Source(seen_from(folder, alone.base.model), alone.base.revision)


def _merge(recipe: object) -> Merge:
    if not isinstance(recipe, Merge):
        raise TypeError("a draft is always a merge")
    return recipe


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


def _lines(
    *,
    merge: Merge,
    written: tuple[Source | None, Sequence[Input]],
    per: Per,
    tasks: Sequence[TaskDraft],
    trials: int,
    adapters: bool,
) -> list[str]:
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
        lines.append(f"  base: {quoted(base.model)}")
    lines.append("  models:    # a weight below 0 turns a model's change around" if low < 0 else "  models:")
    for item in inputs:
        model = item.recipe.model if isinstance(item.recipe, Source) else ""
        lines.append(f"    - {{model: {quoted(model)}, weight: {{low: {low:g}, high: {high:g}, start: {start:g}}}}}")
    if per.groups:
        groups = ", ".join(per.groups)
        value = f"[{groups}]" if per.layers is None else f"{{layers: {per.layers}, groups: [{groups}]}}"
        lines.append(f"  per: {value}    # one gene for each of these groups of tensors")
    lines += lines_for_weights(tasks)
    return [
        *lines,
        "search:",
        "  strategy: cma",
        f"  trials: {trials}",
        "  seed: 0",
        "backend: {kind: local}    # transformers in this process",
        "# budget: {hours: 8}    # stop early enough to choose and test the winner within this time",
        f"# The result is {'an adapter' if adapters else 'a checkpoint'} in studies/, with a report.",
    ]
