"""Who turns ensembles into scores: every member's answers fill a table once, and each candidate is scored on it.

The first candidate of a split asks every member every item that the journal has no answer for; each answer is
journalled as it comes. All further candidates are arithmetic. A request that failed leaves its place in the table empty
until the study is started again: then it is asked again, as an answer that is on disk never is. What a decision was
made on stays as it was: after the winner is journalled, only test answers are asked for, and after the end nothing is.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from evomerge.backends.protocol import Backend
from evomerge.errors import CandidateError, ConfigError
from evomerge.exchange import Answer
from evomerge.recipe.tree import Endpoint, Ensemble, Recipe
from evomerge.strategies.ensemble.protocol import Reply
from evomerge.strategies.ensemble.registry import get
from evomerge.strategies.ensemble.resolve import parameters_for
from evomerge.strategies.merge.resolve import RecipeProblem
from evomerge.study.evaluate import Work
from evomerge.study.fitness import Evaluated
from evomerge.study.journal import ItemAnswer, Journal
from evomerge.tasks.items import Item
from evomerge.tasks.settings import Split
from evomerge.tasks.task import Task

Place = tuple[Task, Item]
Row = Sequence[Reply | None]
"""One member's replies to the items of a split, in the order of the places."""


class EnsembleEvaluator:
    """Scores ensembles of `members`, and the members alone, on tasks.

    `answered` is called with a number of items: for each answer as it comes (or is remembered), and for all items of a
    candidate when it is scored. `reasons` says, by task and item, what the last failed request failed for.
    """

    def __init__(
        self,
        backend: Backend,
        tasks: Sequence[Task],
        journal: Journal,
        members: Sequence[Endpoint],
        answered: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._backend = backend
        self._tasks = tasks
        self._journal = journal
        self._members = tuple(dict.fromkeys(members))
        self._answered = answered
        self._rows: dict[Split, Mapping[Endpoint, Row]] = {}
        self._scored: dict[tuple[Split, str, str, str], float | None] = {}
        self.reasons: dict[tuple[str, str], str] = {}

    def items(self, split: Split, recipes: int) -> int:
        """Return how many items `answered` will be told of while so many recipes are scored on a split."""
        one = sum(len(task.items(split)) for task in self._tasks)
        return one * recipes + self.requests(split, recipes)

    def requests(self, split: Split, recipes: int) -> int:
        """Return how many requests it may take at most to score so many recipes on a split."""
        del recipes  # however many: the members are asked once
        return 0 if split in self._rows else len(self._members) * sum(len(task.items(split)) for task in self._tasks)

    async def evaluate(self, work: Work[Recipe]) -> Evaluated:
        """Return the scores of every item of the split.

        Raises CandidateError for a recipe that is no ensemble of the members, EndpointPaused and ConfigError where an
        endpoint wants a person.
        """
        if work.split not in self._rows:
            self._rows[work.split] = await self._fill(work.split)
        replies = self._replies(work.recipe, self._rows[work.split])
        scores: dict[str, dict[str, float | None]] = {task.name: {} for task in self._tasks}
        for (task, item), reply in zip(self._places(work.split), replies, strict=True):
            scores[task.name][item.id] = None if reply is None else self._score(task, item, work.split, reply)
        self._answered(sum(map(len, scores.values())))
        return Evaluated(scores)

    def _replies(self, recipe: Recipe, rows: Mapping[Endpoint, Row]) -> Row:
        """Return what a recipe replies to every item."""
        try:
            match recipe:
                case Endpoint():
                    return rows[recipe]
                case Ensemble():
                    combiner = get(str(recipe.combiner))
                    params = parameters_for(recipe, combiner)
                    columns = zip(*(rows[item.recipe] for item in recipe.members), strict=True)
                    return [combiner.combine(replies, params) for replies in columns]
                case _:
                    raise CandidateError("only ensembles of endpoints can be scored on their answers")
        except (RecipeProblem, ConfigError) as error:
            raise CandidateError(str(error)) from None
        except KeyError as error:
            raise CandidateError(f"{error.args[0]} is none of the endpoints that are asked") from None

    def _score(self, task: Task, item: Item, split: Split, reply: Reply) -> float | None:
        """Return what a reply is worth; each text is judged once."""
        place = (split, task.name, item.id, reply.text)
        if place not in self._scored:
            self._scored[place] = task.score(item, split, Answer(text=reply.text)).value
        return self._scored[place]

    def _places(self, split: Split) -> list[Place]:
        return [(task, item) for task in self._tasks for item in task.items(split)]

    async def _fill(self, split: Split) -> Mapping[Endpoint, Row]:
        """Return the table of a split, asking for what the journal does not have; one failure ends them all."""
        asking = [asyncio.create_task(self._ask(member, split)) for member in self._members]
        try:
            return dict(zip(self._members, await asyncio.gather(*asking), strict=True))
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _ask(self, member: Endpoint, split: Split) -> Row:
        """Return one member's replies to every item of a split."""
        identity = member.fingerprint or member.name
        kept = {task.name: self._journal.answers(identity, task.name, split) for task in self._tasks}
        places = self._places(split)
        found = [kept[task.name].get(item.id) for task, item in places]
        self._answered(sum(answer is not None for answer in found))
        missing = [index for index, answer in enumerate(found) if answer is None]
        if missing and not self._decided(split):
            requests = [places[index][0].request(places[index][1], split) for index in missing]
            async with self._backend.hold(member) as model:
                async for number, answer in model.answer(requests):
                    task, item = places[missing[number]]
                    found[missing[number]] = self._keep(identity, task, item, split, answer)
        return [
            None if answer is None else Reply(answer.text, task.key(split, answer.text))
            for (task, _), answer in zip(places, found, strict=True)
        ]

    def _decided(self, split: Split) -> bool:
        """Return whether something was decided on the answers of a split: the winner, or on test the result."""
        decision = "finished" if split == "test" else "winner"
        return any(event.kind == "decision" and decision in event.data for event in self._journal.events())

    def _keep(self, member: str, task: Task, item: Item, split: Split, answer: Answer) -> ItemAnswer | None:
        """Journal an answer, or remember why there is none."""
        self._answered(1)
        if answer.failure is not None:
            self.reasons[task.name, item.id] = answer.failure.message
            return None
        kept = ItemAnswer(
            item.id, answer.text or "", answer.finish, answer.usage.prompt_tokens, answer.usage.completion_tokens
        )
        self._journal.put_answer(member, task.name, split, kept)
        self._journal.commit()
        return kept
