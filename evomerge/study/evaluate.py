"""Who turns recipes into scores.

An evaluator is given work (a recipe, and which split of the items) and gives back scores, item by item. Scores that the
journal holds are never asked for again; a batch of requests is always the same batch, so that no score depends on what
happened to be there already.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from evomerge.backends.protocol import Backend, Model
from evomerge.errors import BackendError
from evomerge.exchange import Answer, Failure
from evomerge.recipe.tree import Recipe
from evomerge.study.fitness import Cost, Evaluated
from evomerge.study.journal import ItemScore, Journal
from evomerge.tasks.items import Item
from evomerge.tasks.settings import Split
from evomerge.tasks.task import Task

T = TypeVar("T")
UNANSWERED = Answer(failure=Failure("lost", "the backend gave no answer"))


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """One recipe (or whatever the space decodes to) to be scored on the items of a split."""

    recipe: T
    recipe_id: str
    split: Split


class Evaluator(Protocol[T]):
    """Turns work into scores."""

    async def evaluate(self, work: Work[T]) -> Evaluated:
        """Return the scores of every item, and what each cost as far as that is known.

        Raises CandidateError where the recipe cannot be, BackendError to be asked again.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Batch:
    task: Task
    items: tuple[Item, ...]


class TaskEvaluator:
    """Scores recipes held by a backend on tasks; every answered batch is journalled at once.

    `answered` is called with the number of items of each batch that has its scores, asked or remembered. `reasons`
    says, by task and item, what the last failed request failed for.
    """

    def __init__(
        self,
        backend: Backend,
        tasks: Sequence[Task],
        journal: Journal,
        answered: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._backend = backend
        self._tasks = tasks
        self._journal = journal
        self._answered = answered
        self.reasons: dict[tuple[str, str], str] = {}

    def items(self, split: Split, recipes: int) -> int:
        """Return how many items `answered` will be told of while so many recipes are scored on a split."""
        return recipes * sum(len(task.items(split)) for task in self._tasks)

    def requests(self, split: Split, recipes: int) -> int:
        """Return how many requests it may take at most to score so many recipes on a split."""
        return self.items(split, recipes)

    async def evaluate(self, work: Work[Recipe]) -> Evaluated:
        """Return the scores of every item of the split, asking only for batches that are not all there."""
        kept = {task.name: self._journal.scores(work.recipe_id, task.name, work.split) for task in self._tasks}
        missing: list[_Batch] = []
        costs: dict[str, dict[str, Cost]] = {task.name: {} for task in self._tasks}
        for batch in self._batches(work.split):
            if all(item.id in kept[batch.task.name] for item in batch.items):
                self._answered(len(batch.items))
            else:
                missing.append(batch)
        if missing:
            async with self._backend.hold(work.recipe) as model:
                for batch in missing:
                    scores = await self._ask(model, batch, work.split, costs[batch.task.name])
                    self._journal.put_scores(work.recipe_id, batch.task.name, work.split, scores)
                    self._journal.commit()
                    kept[batch.task.name] |= {
                        score.item: score for score in scores if score.item not in kept[batch.task.name]
                    }
                    self._answered(len(batch.items))
        found = {
            task.name: {item.id: kept[task.name][item.id].score for item in task.items(work.split)}
            for task in self._tasks
        }
        return Evaluated(found, costs)

    def _batches(self, split: Split) -> Iterator[_Batch]:
        """Yield the batches of a split: who shares one depends on the task and the backend's batch size alone."""
        for task in self._tasks:
            items = task.items(split)
            size = self._backend.batch_size or max(len(items), 1)
            for begin in range(0, len(items), size):
                yield _Batch(task, tuple(items[begin : begin + size]))

    async def _ask(self, model: Model, batch: _Batch, split: Split, costs: dict[str, Cost]) -> list[ItemScore]:
        """Return the scores of a batch, and write into `costs` what its answers cost."""
        requests = [batch.task.request(item, split) for item in batch.items]
        answers: list[Answer] = [UNANSWERED] * len(requests)
        async for index, answer in _checked(model.answer(requests), len(requests)):
            answers[index] = answer
            costs[batch.items[index].id] = Cost(answer.usd or None, answer.seconds or None)  # 0 stands for unknown
            if answer.failure is not None:
                self.reasons[batch.task.name, batch.items[index].id] = answer.failure.message
        return [
            ItemScore(item.id, batch.task.score(item, split, answer).value, answer.text)
            for item, answer in zip(batch.items, answers, strict=True)
        ]


async def _checked(answers: AsyncIterator[tuple[int, Answer]], count: int) -> AsyncIterator[tuple[int, Answer]]:
    async for index, answer in answers:
        if not 0 <= index < count:
            raise BackendError(f"the backend answered request {index} of {count}; this is a defect of the backend")
        yield index, answer
