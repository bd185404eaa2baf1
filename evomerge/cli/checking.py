"""What `evomerge check` shows: the plan of a study, and a few items answered."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evomerge.backends.protocol import Backend
from evomerge.exchange import Answer, Message, Request
from evomerge.recipe.tree import Ensemble, Recipe
from evomerge.study.plan import Plan, artifact_in_words, in_words
from evomerge.study.prepare import Prepared

SHOWN_GENES = 12


def print_plan(prepared: Prepared, planned: Plan, console: Console) -> None:
    """Print what will be searched, on what, and what it costs."""
    settings = prepared.job.settings
    genes = prepared.space.genes
    names = ", ".join(gene.name for gene in genes[:SHOWN_GENES]) + (", …" if len(genes) > SHOWN_GENES else "")
    lines = [
        ("recipe", f"{len(genes)} gene{'s' * (len(genes) != 1)}: {names}"),
        ("result", artifact_in_words(planned.artifact)),
        ("held", _held(planned)),
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
    if planned.usd is not None:
        without = f"; without {', '.join(planned.unpriced)}, whose prices are not given" if planned.unpriced else ""
        console.print(
            "note: at most means a token for every byte of a prompt, and every answer as long as max_tokens allows; a "
            f"request that fails may be asked again{without}",
            soft_wrap=True, highlight=False, markup=False,
        )  # fmt: skip
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


def _held(planned: Plan) -> str:
    placement = planned.placement
    return placement.summary + (f"; memory {in_words(placement.memory_bytes)}" if placement.memory_bytes else "")


async def try_items(prepared: Prepared, backend: Backend, count: int, console: Console) -> None:
    """Answer `count` search items of each task with the recipe that the search starts from, and show the scores.

    Of an ensemble every endpoint answers.
    """
    start = prepared.space.decode(prepared.space.start)
    asked: dict[str, Recipe] = {"": start}
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
