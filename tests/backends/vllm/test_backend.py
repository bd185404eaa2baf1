"""The real vLLM keeps every promise of a backend, and answers as the embedded backend does."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from evomerge.backends.local import LocalBackend
from evomerge.backends.protocol import Backend, Placement, Unsupported
from evomerge.backends.settings import LocalSettings
from evomerge.backends.vllm.adapters import SHARED_MEMORY
from evomerge.backends.vllm.backend import VllmBackend
from evomerge.backends.vllm.make import vllm_backend
from evomerge.backends.vllm.server import Server
from evomerge.backends.vllm.settings import VllmSettings
from evomerge.backends.weights.adapter_folder import write_adapter
from evomerge.backends.weights.artifact import LowRank
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import CandidateError, ConfigError
from evomerge.exchange import Answer, Generate, Judge, Message, Request, Sampling
from evomerge.recipe.tree import Endpoint, Input, Merge, Source, WeightRecipe
from evomerge.testing.backends import BackendCase, answers, check_backend
from tests.support.vllm import vllm_python

__all__ = ["vllm_python"]

TINY = Path(__file__).resolve().parents[3] / "zoo" / "tiny"
PROMPTS = ("reverse: abc\n= ", "sort: dcab\n= ", "add: 12+3\n= ", "shift: hello\n= ")
NOWHERE = Path("/nowhere")


def source(name: str) -> Source:
    return Source(str(TINY / name))


def merge(*parts: tuple[str, float], method: str = "task_arithmetic") -> Merge:
    return Merge(method, tuple(Input(source(name), {"weight": weight}) for name, weight in parts), source("base"))


STORE = WeightStore()
WHOLE = STORE.resolve(merge(("experts/add", 0.7), ("experts/reverse", 0.4)), TINY)
OTHER = STORE.resolve(source("experts/sort"), TINY)
LOW = STORE.resolve(merge(("adapters/add", 0.7), ("adapters/reverse", 0.6)), TINY)
OTHER_LOW = STORE.resolve(merge(("adapters/sort", 1.0)), TINY)
MANY_LOW = [
    STORE.resolve(merge(("adapters/add", weight), ("adapters/shift", 1 - weight)), TINY) for weight in (0.2, 0.5, 0.9)
]
BASE = STORE.resolve(source("base"), TINY)
TIES = STORE.resolve(merge(("adapters/add", 0.7), ("adapters/reverse", 0.6), method="ties"), TINY)
QUESTIONS: list[Request] = [
    *(Generate(prompt, Sampling(8, stop=("\n",))) for prompt in PROMPTS),
    *(Judge(prompt, ("cba\n", "abcd\n")) for prompt in PROMPTS),
    Generate((Message("user", "reverse: abc"),), Sampling(5)),
]


def made(python: Path, folder: Path, recipes: Sequence[WeightRecipe], **settings: Any) -> Backend:
    chosen = VllmSettings.model_validate(
        {"kind": "vllm", "python": str(python), "args": {"enforce-eager": True}, "slots": 3, **settings}
    )
    return vllm_backend(chosen, STORE, recipes, root=TINY, folder=folder, environment={})


def run(backend: Backend, work: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        try:
            await work()
        finally:
            await backend.close()

    asyncio.run(whole())


async def asked(backend: Backend, recipe: WeightRecipe, requests: Sequence[Request] = QUESTIONS) -> list[Answer]:
    async with backend.hold(recipe) as model:
        return await answers(model, requests)


async def embedded(*recipes: WeightRecipe) -> list[list[Answer]]:
    backend = LocalBackend(LocalSettings(device="cpu", dtype="float32", threads=1), STORE)
    try:
        return [await asked(backend, recipe) for recipe in recipes]
    finally:
        await backend.close()


def agree(ours: Sequence[Answer], theirs: Sequence[Answer]) -> None:
    for one, two in zip(ours, theirs, strict=True):
        assert (one.text, one.finish, one.usage) == (two.text, two.finish, two.usage)
        assert [likelihood.tokens for likelihood in one.likelihoods] == [found.tokens for found in two.likelihoods]
        assert [likelihood.logprob for likelihood in one.likelihoods] == pytest.approx(
            [likelihood.logprob for likelihood in two.likelihoods], abs=1e-4
        )


@pytest.mark.slow
def test_whole_models_are_swapped_into_one_engine(vllm_python: Path, tmp_path: Path) -> None:
    backend = made(vllm_python, tmp_path, [WHOLE, OTHER])
    case = BackendCase(WHOLE, OTHER, Endpoint("far"), PROMPTS, ("a", "b", "c"))

    async def work() -> None:
        again = [await asked(backend, recipe) for recipe in (WHOLE, OTHER, BASE)]
        for ours, theirs in zip(again, await embedded(WHOLE, OTHER, BASE), strict=True):
            agree(ours, theirs)
        await _held_to_a_form(backend)
        long = [Generate(f"{prompt}{number}", Sampling(2)) for number in range(300) for prompt in PROMPTS]
        assert all(answer.text is not None for answer in await asked(backend, WHOLE, long))
        await check_backend(backend, case)
        assert starts(backend) == 1

    run(backend, work)


async def _held_to_a_form(backend: Backend) -> None:
    """Answers are among the choices, the likeliest of them, and fit the schema, where they may be as long as they are."""
    choices = ("abc", "cba", "9", "b b")
    asked_for = [Generate(prompt, Sampling(20, choices=choices)) for prompt in PROMPTS]
    found = await asked(backend, WHOLE, asked_for)
    assert {answer.text for answer in found} <= set(choices)
    assert {answer.finish for answer in found} == {"stop"}
    assert found[0].text == "cba"
    schema = json.dumps({"type": "object", "properties": {"n": {"type": "boolean"}}, "required": ["n"]})
    (one,) = await asked(backend, WHOLE, [Generate("a", Sampling(40, schema=schema))])
    assert one.text is not None
    if one.finish == "stop":
        assert isinstance(json.loads(one.text)["n"], bool)
    else:
        assert one.text.lstrip().startswith("{")


@pytest.mark.slow
def test_adapters_share_one_engine_with_their_base_and_with_whole_models(vllm_python: Path, tmp_path: Path) -> None:
    backend = made(vllm_python, tmp_path, [LOW, OTHER_LOW, BASE])
    case = BackendCase(LOW, OTHER_LOW, Endpoint("far"), PROMPTS, ("a", "b", "c"))

    async def work() -> None:
        alone = [await asked(backend, recipe) for recipe in (LOW, *MANY_LOW, BASE)]
        for ours, theirs in zip(alone, await embedded(LOW, *MANY_LOW, BASE), strict=True):
            agree(ours, theirs)
        together = await asyncio.gather(*(asked(backend, recipe) for recipe in (LOW, *MANY_LOW, BASE)))
        for ours, theirs in zip(together, alone, strict=True):
            agree(ours, theirs)
        mixed = await asyncio.gather(*(asked(backend, recipe) for recipe in (LOW, TIES, BASE, MANY_LOW[0])))
        for ours, theirs in zip(mixed, await embedded(LOW, TIES, BASE, MANY_LOW[0]), strict=True):
            agree(ours, theirs)
        await check_backend(backend, case)
        assert starts(backend) == 1

    run(backend, work)
    assert not [folder for folder in SHARED_MEMORY.glob("evomerge-adapters-*") if _ours(folder)]


def _ours(folder: Path) -> bool:
    return f"-{os.getpid()}-" in folder.name


def starts(backend: Backend) -> int:
    host = cast(VllmBackend, backend)._host
    return cast(Server, host).starts


def test_what_would_be_held_is_said_before_anything_is_started(tmp_path: Path) -> None:
    whole = made(Path(sys.executable), tmp_path, [WHOLE])
    placed = whole.plan(WHOLE)
    assert isinstance(placed, Placement)
    assert "merged from 3 models of 5.3 MB (" in placed.summary
    assert placed.dtype in ("float32", "bfloat16")
    low = made(Path(sys.executable), tmp_path, [LOW])
    placed = low.plan(LOW)
    assert isinstance(placed, Placement)
    assert "an adapter of rank 16, not merged" in placed.summary
    assert (whole.slots, low.slots) == (1, 3)
    assert isinstance(low.plan(Endpoint("far")), Unsupported)
    assert not list(tmp_path.iterdir())


def test_several_servers_are_one_pool(tmp_path: Path) -> None:
    pool = made(Path(sys.executable), tmp_path, [LOW], gpus=2)
    assert pool.slots == 6
    placed = pool.plan(LOW)
    assert isinstance(placed, Placement)
    assert placed.summary.endswith(", 2 times")
    run(pool, _nothing)


async def _nothing() -> None:
    pass


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"backend\.python: there is no file /nowhere"):
        made(NOWHERE, tmp_path, [WHOLE])


def test_a_model_of_another_form_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in (TINY / "base").iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    found = STORE.resolve(Source(str(other)), tmp_path)
    refused = made(Path(sys.executable), tmp_path, [WHOLE]).plan(found)
    assert isinstance(refused, Unsupported)
    assert "rms_norm_eps" in refused.reason


def test_an_adapter_wider_than_the_room_is_a_candidate_that_cannot_be(tmp_path: Path) -> None:
    backend = cast(VllmBackend, made(Path(sys.executable), tmp_path, [OTHER_LOW]))
    backend._serving = replace(backend._serving, rank=8)

    async def work() -> None:
        with pytest.raises(CandidateError, match="16 wide, and the server was started for 8"):
            await asyncio.to_thread(backend._written, "name", LOW, BASE, STORE.artifact(LOW))  # pyright: ignore[reportArgumentType]

    run(backend, work)


def headed(folder: Path) -> WeightRecipe:
    """Return an adapter of the output head."""
    folder.mkdir()
    rows, columns = 100, 128
    head = LowRank(a=torch.ones(2, columns), b=torch.zeros(rows, 2))
    write_adapter(folder, {"lm_head": head}, source("base"), ["lm_head"])
    return STORE.resolve(Merge("task_arithmetic", (Input(Source(str(folder))),), source("base")), folder)


def test_likelihoods_under_an_adapter_of_the_output_head_are_refused_before_anything_is_started(tmp_path: Path) -> None:
    recipe = headed(tmp_path / "head")
    settings = VllmSettings.model_validate({"kind": "vllm", "python": sys.executable})

    def make(recipe: WeightRecipe, *, judged: bool) -> Backend:
        return vllm_backend(settings, STORE, [recipe], root=TINY, folder=tmp_path, environment={}, judged=judged)

    with pytest.raises(ConfigError, match="change the output head.*no likelihoods"):
        make(recipe, judged=True)
    backend = cast(VllmBackend, make(recipe, judged=False))
    assert "lm_head" in backend._serving.kinds

    async def work() -> None:
        async with backend._model(cast(Any, None), "name", "salt", TINY / "base") as model:
            with pytest.raises(ConfigError, match="no likelihoods"):
                await answers(model, [Judge("a", ("b",))])

    run(backend, work)
    make(LOW, judged=True)
