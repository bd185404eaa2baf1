"""An ensemble behind the front: its members are asked, and its combiner makes one answer of theirs.

The combiner is the one that scored the candidates of the search, over one question instead of many. Members are asked
together, as far as the combiner wants them at all. One deadline holds for all of it: then the answer is made of those
that are there, and the reply says who is missing.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from evomerge.backends.protocol import Backend
from evomerge.exchange import Answer, Generate
from evomerge.recipe.tree import Ensemble, recipe_id
from evomerge.serve.answering import Asked, Combined, Question, Unanswerable, Unanswered
from evomerge.serve.members import Member
from evomerge.strategies.ensemble.protocol import Reply
from evomerge.strategies.ensemble.registry import get
from evomerge.strategies.ensemble.resolve import parameters_for
from evomerge.study.answers import AnswerSettings


class EnsembleAnswering:
    """Answers with the ensemble of a recipe; keeps the promises of `Answering`.

    `make` gives a backend that holds a member, and is called again when a member has to be reached anew; `deadline` is
    in seconds; `tell` hears of members that do not answer. Raises ConfigError for own code that cannot be imported.
    """

    def __init__(
        self,
        recipe: Ensemble,
        make: Callable[[], Backend],
        answers: AnswerSettings,
        root: Path,
        *,
        deadline: float,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._combiner = get(str(recipe.combiner))
        self._params = parameters_for(recipe, self._combiner)
        self._members = tuple(Member(item.recipe.name, item.recipe, make, tell, clock) for item in recipe.members)
        self._keys = {task: answers.keys(root, task) for task in (None, *answers.tasks)}
        self._deadline, self._clock = deadline, clock
        self.members = tuple(member.name for member in self._members)
        self.fingerprint, self.default = recipe_id(recipe), answers.sampling
        self.summary = f"{self._combiner.name} of {', '.join(self.members)}"

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Close all connections at the end."""
        try:
            yield
        finally:
            for member in self._members:
                await member.close()

    async def answer(self, question: Question) -> Combined:
        """Return the answer that the combiner makes of the members' answers."""
        request, ends = Generate(question.prompt, question.sampling), self._clock() + self._deadline
        known: dict[int, Answer] = {}
        while missing := self._wanted(known):
            asked = [self._members[index].ask(request, lambda: ends - self._clock()) for index in missing]
            known |= dict(zip(missing, await asyncio.gather(*asked), strict=True))
        return self._combined(known, self._keys.get(question.metadata.get("task"), self._keys[None]))

    def _wanted(self, known: Mapping[int, Answer]) -> list[int]:
        """Return the members that the combiner wants to hear, beside those that are known."""
        return [index for index in range(len(self._members)) if index not in known]

    def _combined(self, known: Mapping[int, Answer], key: Callable[[str], str]) -> Combined:
        asked = tuple(_asked(self._members[index].name, answer) for index, answer in sorted(known.items()))
        replies = [_reply(known.get(index), key) for index in range(len(self._members))]
        taken = self._combiner.combine(replies, self._params)
        if taken is None:
            raise _nobody(known, asked)
        index = next(index for index, reply in enumerate(replies) if reply is taken)
        return Combined(taken.text, known[index].finish, asked, self._members[index].name)


def _reply(answer: Answer | None, key: Callable[[str], str]) -> Reply | None:
    if answer is None or answer.failure is not None:
        return None
    text = answer.text or ""
    return Reply(text, key(text))


def _asked(name: str, answer: Answer) -> Asked:
    kind = None if answer.failure is None else answer.failure.kind
    return Asked(name, answer.usage, answer.usd, answer.seconds, kind)


def _nobody(known: Mapping[int, Answer], asked: tuple[Asked, ...]) -> Exception:
    """Return why there is no answer at all."""
    kinds = {answer.failure.kind for answer in known.values() if answer.failure is not None}
    if kinds == {"refused"} and all(one.failure is not None for one in asked):
        return Unanswerable("every model that was asked refuses this question")
    if any(one.failure is None for one in asked):
        return Unanswered("whoever answered has no say in this ensemble, and the others did not answer", asked)
    return Unanswered("none of the models behind this server answered in time; ask again later", asked)
