"""What `evomerge check` shows: the plan of a study, and a few items answered."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evomerge.backends.protocol import Backend
from evomerge.exchange import Answer, Message, Request
from evomerge.study.plan import Plan, artifact_in_words, in_words
from evomerge.study.prepare import Prepared
from evomerge.tasks.task import Task

SHOWN_GENES = 12


def print_plan(prepared: Prepared, planned: Plan, console: Console) -> None:
    """Print what will be searched, on what, and what it costs."""
    settings = prepared.job.settings
    genes = prepared.space.genes
    names = ", ".join(gene.name for gene in genes[:SHOWN_GENES]) + (", …" if len(genes) > SHOWN_GENES else "")
    lines = [
        ("recipe", f"{len(genes)} gene{'s' * (len(genes) != 1)}: {names}"),
        ("result", artifact_in_words(planned.artifact)),
        ("held", f"{planned.placement.summary}; memory {in_words(planned.placement.memory_bytes)}"),
        ("search", f"{settings.search.strategy}, {settings.search.trials} trials, {settings.order} order"),
        ("baselines", ", ".join(baseline.name for baseline in prepared.baselines) or "none"),
    ]
    for name, text in lines:
        console.print(f"[bold]{name:<10}[/bold]", Text(text), soft_wrap=True)
    table = Table(show_edge=False, pad_edge=False)
    for column in ("split", "recipes", "items each", "requests", "share"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for share in planned.shares:
        percent = f"{share.requests / planned.requests:.0%}"
        table.add_row(share.split, str(share.recipes), str(share.items), f"{share.requests:,}", percent)
    table.add_row("all", "", "", f"{planned.requests:,}", "100%", style="bold")
    console.print(table)
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


async def try_items(prepared: Prepared, backend: Backend, count: int, console: Console) -> None:
    """Answer `count` search items of each task with the recipe that the search starts from, and show the scores."""
    recipe = prepared.space.decode(prepared.space.start)
    try:
        async with backend.hold(recipe) as model:
            for task in prepared.tasks:
                items = task.items("search")[:count]
                requests = [task.request(item, "search") for item in items]
                answers = {index: answer async for index, answer in model.answer(requests)}
                for index, item in enumerate(items):
                    score = task.score(item, "search", answers[index]).value
                    _show(task, requests[index], answers[index], score, console)
    finally:
        await backend.close()


def _show(task: Task, request: Request, answer: Answer, score: float | None, console: Console) -> None:
    prompt = request.prompt if isinstance(request.prompt, str) else "\n".join(map(_turn, request.prompt))
    if answer.failure is not None:
        reply = f"none: {answer.failure.message}"
    elif answer.text is not None:
        reply = answer.text
    else:
        reply = ", ".join(f"{likelihood.logprob:.2f} nats" for likelihood in answer.likelihoods)
    console.print(f"\n{task.name}", style="bold", highlight=False, markup=False)
    for name, text in (("prompt", prompt), ("answer", reply), ("score", "missing" if score is None else f"{score:g}")):
        console.print(f"[bold]{name:<8}[/bold]", Text(text), soft_wrap=True)


def _turn(message: Message) -> str:
    return f"{message.role}: {message.content}"
