"""The embedded backend can be given up at any step, tells whose fault a failure is, and imports torch when used."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from evomerge.backends.local import LocalBackend, judging
from evomerge.backends.local.work import Work
from evomerge.backends.settings import LocalSettings
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import BackendError
from evomerge.exchange import Answer, Generate, Judge, Request, Sampling
from evomerge.recipe.tree import Source, WeightRecipe
from evomerge.testing.backends import answers
from tests.support.models import save_model

ENDLESS = 20_000
"""More tokens than a test can wait for."""


class Counted(LocalBackend):
    """A backend that counts how often its model is asked."""

    passes = 0

    def count(self) -> None:
        def counted(*_: Any) -> None:
            self.passes += 1

        held = self._engine()._held
        assert held is not None
        held.causal.model.register_forward_pre_hook(counted)


@pytest.fixture
def recipe(tmp_path: Path) -> WeightRecipe:
    folder = save_model(tmp_path / "endless", 1, max_position_embeddings=10**12, eos_token_id=None)
    return WeightStore().resolve(Source(str(folder)), tmp_path)


@pytest.fixture
def backend() -> Counted:
    return Counted(LocalSettings(device="cpu"), WeightStore())


def endless() -> list[Request]:
    return [Generate("ab", Sampling(1)), Generate("ab", Sampling(ENDLESS))]


def test_leaving_stops_the_decoding_between_two_tokens(backend: Counted, recipe: WeightRecipe) -> None:
    async def ask() -> int:
        async with backend.hold(recipe) as model:
            backend.count()
            async for index, _ in model.answer(endless()):
                assert index == 0
                break
        stopped = backend.passes
        async with backend.hold(recipe) as model:
            await answers(model, endless()[:1])
        return backend.passes - stopped

    assert asyncio.run(ask()) == 1
    assert 1 < backend.passes < ENDLESS / 2


def test_a_cancelled_task_has_stopped_when_its_cancellation_arrives(backend: Counted, recipe: WeightRecipe) -> None:
    async def ask(first: asyncio.Event) -> None:
        async with backend.hold(recipe) as model:
            backend.count()
            async for _ in model.answer(endless()):
                first.set()

    async def cancel() -> None:
        first = asyncio.Event()
        task = asyncio.create_task(ask(first))
        await first.wait()  # the loop is free while the thread decodes
        for _ in range(3):  # an impatient caller
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not backend._slot.locked()

    asyncio.run(cancel())
    assert backend.passes < ENDLESS / 2


def test_who_still_waits_when_the_recipe_is_let_go_is_told(backend: Counted, recipe: WeightRecipe) -> None:
    async def ask() -> None:
        async with backend.hold(recipe) as model:
            waiting = model.answer(endless())
            await anext(waiting)
        with pytest.raises(BackendError, match="let go"):
            await anext(waiting)
        with pytest.raises(BackendError, match="let go"):
            await answers(model, endless())

    asyncio.run(ask())


class Slow(WeightStore):
    """A store whose tensors do not come to an end by themselves; `begun` is called with the first."""

    read = 0
    begun: Callable[[], object]

    def tensors(self, recipe: WeightRecipe) -> Iterator[tuple[str, torch.Tensor]]:
        self.begun()
        first = next(super().tensors(recipe))
        while self.read < ENDLESS:
            self.read += 1
            yield first


def test_a_recipe_can_be_given_up_while_its_tensors_are_written(recipe: WeightRecipe) -> None:
    store = Slow()
    backend = LocalBackend(LocalSettings(device="cpu"), store)

    async def ask() -> None:
        async with backend.hold(recipe):
            raise AssertionError("the recipe was held")

    async def cancel() -> None:
        reading, loop = asyncio.Event(), asyncio.get_running_loop()
        store.begun = lambda: loop.call_soon_threadsafe(reading.set)
        task = asyncio.create_task(ask())
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert store.read < ENDLESS


def test_running_out_of_memory_is_not_the_recipes_fault(backend: Counted, recipe: WeightRecipe) -> None:
    async def ask() -> list[Answer]:
        async with backend.hold(recipe) as model:
            with pytest.raises(BackendError, match=r"lower backend\.batch_size"):
                await answers(model, [Generate("ab", Sampling(10**12 - 10))])
            return await answers(model, endless()[:1])

    assert asyncio.run(ask())[0].failure is None


def test_likelihoods_are_the_same_when_a_batch_is_read_in_parts(
    backend: Counted, recipe: WeightRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[Request] = [Judge("sort:" + "ab" * length, ("abc", "b" * length)) for length in range(1, 6)]

    async def ask() -> list[Answer]:
        async with backend.hold(recipe) as model:
            return await answers(model, requests)

    whole = asyncio.run(ask())
    monkeypatch.setattr(judging, "_LOGITS", 4000)
    parts = asyncio.run(ask())
    for one, two in zip(whole, parts, strict=True):
        assert [likelihood.tokens for likelihood in one.likelihoods] == [item.tokens for item in two.likelihoods]
        assert [likelihood.logprob for likelihood in one.likelihoods] == pytest.approx(
            [likelihood.logprob for likelihood in two.likelihoods], abs=1e-4
        )


def test_a_job_that_fails_raises_after_what_it_gave() -> None:
    def job(emit: Callable[[int], None], running: Callable[[], None]) -> None:
        emit(1)
        running()
        raise BackendError("it broke")

    async def ask() -> None:
        with ThreadPoolExecutor(1) as thread:
            stream = Work(thread).stream(job)
            assert await anext(stream) == 1
            with pytest.raises(BackendError, match="it broke"):
                await anext(stream)

    asyncio.run(ask())


def test_importing_the_backend_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, evomerge.backends.local, evomerge.testing.backends\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
