"""What every backend must do, as a suite that a new one passes: ours, and other people's.

`check_backend` asks a backend nothing but what the protocol offers, so it needs no knowledge of engines. It does not
say whether the answers are those of the recipe's model: that needs an oracle, which the backend's own tests bring.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from evomerge.backends.protocol import Backend, Model, Placement, Unsupported
from evomerge.errors import CandidateError, ConfigError
from evomerge.exchange import Answer, Generate, Judge, Likelihood, Request, Sampling
from evomerge.recipe.tree import Recipe


@dataclass(frozen=True, slots=True)
class BackendCase:
    """What a backend is asked in the suite.

    `recipe` and `other` are models that answer the prompts differently; `unknown` is a recipe that no backend can hold.
    `prompts` are two or more texts of different lengths; `parts` are texts that are tokenised alike together and apart.
    `tolerance` bounds the difference, in nats, of log-probabilities that are computed in two ways. `likelihoods` is False
    for a backend that can tell none: it has to say so.
    """

    recipe: Recipe
    other: Recipe
    unknown: Recipe
    prompts: tuple[str, ...]
    parts: tuple[str, ...]
    max_tokens: int = 8
    tolerance: float = 1e-4
    likelihoods: bool = True

    @property
    def questions(self) -> list[Request]:
        """One batch of all kinds: each prompt generated from, the first also generated from at length 1, and judged."""
        asked: list[Request] = [Generate(prompt, Sampling(self.max_tokens)) for prompt in self.prompts]
        judged = [Judge(self.prompts[0], self.parts)] if self.likelihoods else []
        return [*asked, *judged, Generate(self.prompts[0], Sampling(max_tokens=1))]


async def answers(model: Model, requests: Sequence[Request]) -> list[Answer]:
    """Return the answers in the order of the requests. Raises AssertionError unless each comes exactly once."""
    found: dict[int, Answer] = {}
    async for index, answer in model.answer(requests):
        _expect(index not in found, f"request {index} was answered twice")
        found[index] = answer
    _expect(sorted(found) == list(range(len(requests))), f"answered were {sorted(found)} of {len(requests)} requests")
    return [found[index] for index in range(len(requests))]


async def check_backend(backend: Backend, case: BackendCase) -> None:
    """Ask the backend all that the protocol promises, then close it. Raises AssertionError for a broken promise."""
    check_plan(backend, case)
    await check_answers(backend, case)
    await check_batching(backend, case)
    await (check_likelihoods if case.likelihoods else check_no_likelihoods)(backend, case)
    await check_holding(backend, case)
    await check_cancelling(backend, case)
    await check_unknown(backend, case)
    await backend.close()
    await backend.close()


def check_plan(backend: Backend, case: BackendCase) -> None:
    """A recipe that can be held has a placement with words and a memory."""
    placement = backend.plan(case.recipe)
    _expect(isinstance(placement, Placement), f"the recipe has no placement but {placement}")
    if isinstance(placement, Placement):
        _expect(bool(placement.summary), "the placement says nothing")
        _expect(placement.memory_bytes >= 0, "the placement takes less than no memory")


async def check_answers(backend: Backend, case: BackendCase) -> None:
    """Each request is answered once, in its own kind, and greedy answers are the same whenever the recipe is held."""
    first = await _asked(backend, case.recipe, case.questions)
    for request, answer in zip(case.questions, first, strict=True):
        _expect(answer.failure is None, f"{request} failed: {answer.failure}")
        if isinstance(request, Judge):
            _expect(answer.text is None, "a judged request has a text")
            _expect(len(answer.likelihoods) == len(request.continuations), "not every continuation was judged")
        else:
            _expect(answer.text is not None, "a generated answer has no text")
            _expect(answer.usage.completion_tokens <= request.sampling.max_tokens, "more was generated than allowed")
    other = await _asked(backend, case.other, case.questions)
    _expect(_texts(other) != _texts(first), "two different models gave the same answers: the second was not held")
    again = await _asked(backend, case.recipe, case.questions)
    _expect(again == first, "the same recipe, held again after another one, gave other answers")
    _expect(await _asked(backend, case.recipe, []) == [], "an empty batch was answered")


async def check_batching(backend: Backend, case: BackendCase) -> None:
    """An answer is the same alone as in a batch, and stop strings end it without being in it."""
    together = await _asked(backend, case.recipe, case.questions)
    async with backend.hold(case.recipe) as model:
        for request, answer in zip(case.questions, together, strict=True):
            [alone] = await answers(model, [request])
            _expect(
                alone.text == answer.text, f"{request} was answered {alone.text!r} alone, {answer.text!r} in a batch"
            )
            _expect(alone.usage == answer.usage, f"{request} took {alone.usage} alone, {answer.usage} in a batch")
            for one, two in zip(alone.likelihoods, answer.likelihoods, strict=True):
                _expect(_close(one, two, case.tolerance), f"{request}: {one} alone, {two} in a batch")
        for prompt, answer in zip(case.prompts, together, strict=False):
            stop = (answer.text or "")[1:3]
            if stop:
                [cut] = await answers(model, [Generate(prompt, Sampling(case.max_tokens, stop=(stop,)))])
                expected = (answer.text or "").partition(stop)[0]
                _expect(
                    (cut.text, cut.finish) == (expected, "stop"), f"stopped at {stop!r}, the answer is {cut.text!r}"
                )


async def check_likelihoods(backend: Backend, case: BackendCase) -> None:
    """The likelihood of a text is the product of its parts', each after what stands before it."""
    requests: list[Request] = []
    for prompt in case.prompts:
        requests.append(Judge(prompt, ("".join(case.parts),)))
        before = prompt
        for part in case.parts:
            requests.append(Judge(before, (part,)))
            before += part
    found = iter(await _asked(backend, case.recipe, requests))
    for prompt in case.prompts:
        [whole] = next(found).likelihoods
        parts = [next(found).likelihoods[0] for _ in case.parts]
        total = Likelihood(sum(part.logprob for part in parts), sum(part.tokens for part in parts))
        _expect(whole.logprob < 0, f"{whole} is no log-probability")
        _expect(_close(whole, total, case.tolerance), f"after {prompt!r} the whole has {whole}, its parts {total}")


async def check_no_likelihoods(backend: Backend, case: BackendCase) -> None:
    """A backend that tells no likelihoods says so, and answers on."""
    try:
        await _asked(backend, case.recipe, [Judge(case.prompts[0], case.parts)])
    except ConfigError as error:
        _expect(bool(str(error)), "likelihoods were refused without a reason")
    else:
        _expect(False, "likelihoods were told by a backend that cannot")
    await _asked(backend, case.recipe, case.questions)


async def check_holding(backend: Backend, case: BackendCase) -> None:
    """No more than `slots` recipes are held at a time; one who waits gets the slot of one who leaves."""
    question: list[Request] = [Generate(case.prompts[0], Sampling(case.max_tokens))]
    [expected] = await _asked(backend, case.other, question)
    held = [backend.hold(case.recipe) for _ in range(backend.slots)]
    models = [await one.__aenter__() for one in held]
    waiting = asyncio.create_task(_asked(backend, case.other, question))
    try:
        await answers(models[0], question)
        _expect(not waiting.done(), f"more than {backend.slots} recipes were held at a time")
    finally:
        for one in held:
            await one.__aexit__(None, None, None)
        [answer] = await waiting
    _expect(answer == expected, "who waited for the slot got the answers of another recipe")


async def check_cancelling(backend: Backend, case: BackendCase) -> None:
    """Answers can be given up, by leaving or by being cancelled; the slot is free and the next recipe whole."""
    expected = await _asked(backend, case.other, case.questions)
    async with backend.hold(case.recipe) as model:
        async for _ in model.answer(case.questions):
            break
    _expect(await _asked(backend, case.other, case.questions) == expected, "answers given up spoilt the next recipe")
    for after in (0, 1):
        task = asyncio.create_task(_cancelled(backend, case, after))
        await asyncio.wait([task])
        _expect(task.cancelled(), "a task that waits for answers could not be cancelled")
    _expect(await _asked(backend, case.other, case.questions) == expected, "a cancelled task spoilt the next recipe")


async def check_unknown(backend: Backend, case: BackendCase) -> None:
    """A recipe that cannot be held is refused with a reason, and the backend goes on with others."""
    plan = backend.plan(case.unknown)
    _expect(isinstance(plan, Unsupported) and bool(plan.reason), f"an impossible recipe got {plan}")
    try:
        async with backend.hold(case.unknown):
            _expect(False, "an impossible recipe was held")
    except (CandidateError, ConfigError) as error:
        _expect(bool(str(error)), "an impossible recipe was refused without a reason")
    await _asked(backend, case.recipe, case.questions)


async def _asked(backend: Backend, recipe: Recipe, requests: Sequence[Request]) -> list[Answer]:
    async with backend.hold(recipe) as model:
        return await answers(model, requests)


async def _cancelled(backend: Backend, case: BackendCase, after: int) -> None:
    """Ask, and be cancelled while waiting for the answer number `after`."""
    quick = Generate(case.prompts[0], Sampling(max_tokens=1))
    long = [Generate(prompt, Sampling(max_tokens=10_000)) for prompt in case.prompts]
    task = asyncio.current_task()
    async with backend.hold(case.recipe) as model:
        stream = model.answer([quick, *long])
        for number in range(1 + len(long)):
            if number == after and task is not None:
                task.cancel()
            await anext(stream)


def _texts(found: Sequence[Answer]) -> list[str | None]:
    return [answer.text for answer in found]


def _close(one: Likelihood, two: Likelihood, tolerance: float) -> bool:
    return one.tokens == two.tokens and abs(one.logprob - two.logprob) <= tolerance


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)
