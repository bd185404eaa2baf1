"""A model of weights behind the front: a checkpoint, an adapter or a merge, held by the embedded backend.

Questions that come while others are answered wait for the next batch, which takes all of them at once, so that many
clients cost little more time than one. Text goes to the model as it is, messages through its chat template.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from evomerge.backends.protocol import Backend, Model, Unsupported
from evomerge.errors import ConfigError, EvomergeError
from evomerge.exchange import Answer, Generate, Sampling
from evomerge.recipe.tree import WeightRecipe, recipe_id
from evomerge.serve.answering import Asked, Combined, Question, Unanswerable


@dataclass(frozen=True, slots=True)
class _Waiting:
    request: Generate
    answer: "asyncio.Future[Answer]"

    @property
    def is_text(self) -> bool:
        return isinstance(self.request.prompt, str)


class WeightsAnswering:
    """Answers with the model of a recipe; keeps the promises of `Answering`. Raises ConfigError for one that cannot be
    held."""

    def __init__(self, name: str, recipe: WeightRecipe, backend: Backend, default: Sampling) -> None:
        placed = backend.plan(recipe)
        if isinstance(placed, Unsupported):
            raise ConfigError(placed.reason)
        self.summary, self.fingerprint = placed.summary, recipe_id(recipe)
        self.members, self.default = (name,), default
        self._name, self._recipe, self._backend = name, recipe, backend
        self._waiting: list[_Waiting] = []
        self._come = asyncio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Hold the model while inside."""
        try:
            async with self._backend.hold(self._recipe) as model:
                batches = asyncio.create_task(self._answer_all(model))
                try:
                    yield
                finally:
                    batches.cancel()
                    await asyncio.gather(batches, return_exceptions=True)
        finally:
            await self._backend.close()

    async def answer(self, question: Question) -> Combined:
        """Return the model's answer."""
        found: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(Generate(question.prompt, question.sampling), found))
        self._come.set()
        try:
            answer = await found
        except ConfigError as error:
            raise Unanswerable(str(error)) from None
        if answer.failure is not None:
            raise Unanswerable(answer.failure.message)
        asked = Asked(self._name, answer.usage, answer.usd, answer.seconds)
        return Combined(answer.text or "", answer.finish, (asked,))

    async def _answer_all(self, model: Model) -> None:
        """Answer batch after batch."""
        while True:
            await self._come.wait()
            batch = self._next_batch()
            if batch:
                await _answer(model, batch)

    def _next_batch(self) -> list[_Waiting]:
        """Return those who wait for the same kind of prompt as the first; who went away is left out.

        A model without a chat template refuses a whole batch for its messages, but not one of texts.
        """
        waiting = [one for one in self._waiting if not one.answer.done()]
        same = [one for one in waiting if one.is_text == waiting[0].is_text][: self._backend.batch_size]
        self._waiting = [one for one in waiting if one not in same]
        if not self._waiting:
            self._come.clear()
        return same


async def _answer(model: Model, batch: Sequence[_Waiting]) -> None:
    """Answer one batch; what fails is told to all who are left."""
    try:
        async for index, answer in model.answer([one.request for one in batch]):
            if not batch[index].answer.done():
                batch[index].answer.set_result(answer)
    except EvomergeError as error:
        for one in batch:
            if not one.answer.done():
                one.answer.set_exception(error)
    except asyncio.CancelledError:
        for one in batch:
            one.answer.cancel()
        raise
