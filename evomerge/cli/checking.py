"""What `evomerge check` shows: the plan of a study, and a few items answered."""

from collections.abc import Mapping
from types import MappingProxyType

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evomerge.backends.protocol import Backend, Placement
from evomerge.backends.weights.proxies import Extracted
from evomerge.cli.costs import print_costs
from evomerge.exchange import Answer, Message, Request
from evomerge.recipe.tree import Ensemble, Recipe, WeightRecipe
from evomerge.study.plan import Plan, artifact_in_words, in_words
from evomerge.study.prepare import Prepared
from evomerge.study.proxy import said_of

SHOWN_GENES = 12


def print_plan(
    prepared: Prepared, planned: Plan, console: Console, extracted: Mapping[str, Extracted] = MappingProxyType({})
) -> None:
    """Print what will be searched, on what, and what it costs; `extracted` are adapters of a proxy that are there."""
    settings = prepared.job.settings
    genes = prepared.space.genes
    names = ", ".join(gene.name for gene in genes[:SHOWN_GENES]) + (", …" if len(genes) > SHOWN_GENES else "")
    lines = [
        ("recipe", f"{len(genes)} gene{'s' * (len(genes) != 1)}: {names}"),
        ("result", artifact_in_words(planned.artifact)),
        ("held", _held(planned.placement)),
        *_proxy(prepared, planned, extracted),
        ("search", f"{settings.search.strategy}, {settings.search.trials} trials, {settings.order} order"),
        ("baselines", ", ".join(baseline.name for baseline in prepared.baselines) or "none"),
    ]
    for name, text in lines:
        console.print(f"[bold]{name:<10}[/bold]", Text(text), soft_wrap=True)
    table = Table(show_edge=False, pad_edge=False)
    asked = "endpoints" if isinstance(prepared.template, Ensemble) else "recipes"
    money = [] if planned.usd is None else ["USD at most"]
    for column in ("split", asked, "items each", "requests", "share", *money):
        table.add_column(column, justify="left" if column == "split" else "right")
    for share in planned.shares:
        cells = [share.split, str(share.models), str(share.items), f"{share.requests:,}"]
        cost = [] if share.usd is None else [f"{share.usd:.2f}"]
        table.add_row(*cells, f"{share.requests / planned.requests:.0%}", *cost)
    cost = [] if planned.usd is None else [f"{planned.usd:.2f}"]
    table.add_row("all", "", "", f"{planned.requests:,}", "100%", *cost, style="bold")
    console.print(table)
    print_costs(prepared, planned, console)
    for task in prepared.tasks:
        for note in task.notes:
            console.print(f"note: {note}", soft_wrap=True, highlight=False, markup=False)
    if len(units := {task.unit("search") for task in prepared.tasks}) > 1:
        console.print(
            f"note: the search adds up scores in different units ({', '.join(sorted(units))}), of which one may decide "
            "alone; give every task the same search_by",
            soft_wrap=True, highlight=False, markup=False,
        )  # fmt: skip
    console.print("Everything fits together.", highlight=False)


def _proxy(prepared: Prepared, planned: Plan, extracted: Mapping[str, Extracted]) -> list[tuple[str, str]]:
    """Return what is to be said of a search by proxy."""
    if prepared.proxy is None or planned.proxy is None:
        return []
    said = [f"{prepared.proxy.sentence}; held as {_held(planned.proxy)}"]
    said += [said_of(name, found) for name, found in extracted.items()]
    if len(extracted) < len(prepared.proxy.models):
        said.append("what the adapters lack is known once they are extracted: by --try 1, or when the study searches")
    return [("proxy", text) for text in said]


def _held(placement: Placement) -> str:
    return placement.summary + (f"; memory {in_words(placement.memory_bytes)}" if placement.memory_bytes else "")


async def try_items(
    prepared: Prepared, backend: Backend, count: int, console: Console, proxied: WeightRecipe | None = None
) -> None:
    """Answer `count` search items of each task with the recipe that the search starts from, and show the scores.

    Of an ensemble every endpoint answers; `proxied` is what stands for the recipe in a search by proxy.
    """
    start = prepared.space.decode(prepared.space.start)
    asked: dict[str, Recipe] = {"": start} if proxied is None else {", by proxy": proxied, ", exactly": start}
    if isinstance(start, Ensemble):
        asked = {f", asked of {item.recipe.name}": item.recipe for item in start.members}
    try:
        for whom, recipe in asked.items():
            async with backend.hold(recipe) as model:
                for task in prepared.tasks:
                    items = task.items("search")[:count]
                    requests = [task.request(item, "search") for item in items]
                    answers = {index: answer async for index, answer in model.answer(requests)}
                    for index, item in enumerate(items):
                        score = task.score(item, "search", answers[index]).value
                        _show(f"{task.name}{whom}", requests[index], answers[index], score, console)
    finally:
        await backend.close()


def _show(title: str, request: Request, answer: Answer, score: float | None, console: Console) -> None:
    prompt = request.prompt if isinstance(request.prompt, str) else "\n".join(map(_turn, request.prompt))
    if answer.failure is not None:
        reply = f"none: {answer.failure.message}"
    elif answer.text is not None:
        reply = answer.text
    else:
        reply = ", ".join(f"{likelihood.logprob:.2f} nats" for likelihood in answer.likelihoods)
    console.print(f"\n{title}", style="bold", highlight=False, markup=False)
    for name, text in (("prompt", prompt), ("answer", reply), ("score", "missing" if score is None else f"{score:g}")):
        console.print(f"[bold]{name:<8}[/bold]", Text(text), soft_wrap=True)


def _turn(message: Message) -> str:
    return f"{message.role}: {message.content}"
