"""llama.cpp's server: all scales with every request, whatever it has for everybody."""

from pathlib import Path

import pytest

from evomerge.backends.protocol import Unsupported
from evomerge.exchange import Generate, Message, Request, Sampling
from tests.backends.services.support import PROMPTS, adapters, asked, backend, merge
from tests.support.services import LlamaCppServer, running

REQUESTS: list[Request] = [
    *(Generate(prompt, Sampling(6)) for prompt in PROMPTS),
    Generate((Message("user", "hello"),), Sampling(6)),
]


def test_every_request_names_every_adapter_and_takes_nothing_from_a_cache(family: Path, tmp_path: Path) -> None:
    with running(LlamaCppServer(family / "base", adapters(family))) as server:
        asked(backend(server, "llama.cpp", tmp_path), merge({"two": -0.5}), REQUESTS)
        assert [body["lora"] for body in server.asked] == [
            [{"id": 0, "scale": 0.0}, {"id": 1, "scale": -0.5}, {"id": 2, "scale": 0.0}]
        ] * len(REQUESTS)
        assert {body["cache_prompt"] for body in server.asked} == {False}


def test_the_scales_for_everybody_are_neither_used_nor_touched(family: Path, tmp_path: Path) -> None:
    with running(LlamaCppServer(family / "base", adapters(family))) as server:
        first = asked(backend(server, "llama.cpp", tmp_path), merge({"one": 0.5}), REQUESTS)
        server.scales = [0.3, -2.0, 0.7]
        assert asked(backend(server, "llama.cpp", tmp_path), merge({"one": 0.5}), REQUESTS) == first
        assert server.scales == [0.3, -2.0, 0.7]
        assert "POST /lora-adapters" not in server.seen


@pytest.mark.parametrize("name", ["two", "1", "two.gguf", "/models/two.gguf"])
def test_an_adapter_is_called_by_its_file_or_its_number(name: str, family: Path, tmp_path: Path) -> None:
    with running(LlamaCppServer(family / "base", adapters(family))) as server:
        asked(backend(server, "llama.cpp", tmp_path), merge({name: 0.5}), REQUESTS[:1])
        assert [one["scale"] for one in server.asked[0]["lora"]] == [0.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (merge({"towo": 1.0}), r"no adapter 'towo'; did you mean 'two'\?; it holds one, two, wide"),
        (merge({"two": 1.0, "1": 1.0}), "'1' and 'two' are the same adapter"),
        (merge({"one": 1.0, "two": 1.0}, "ties", density=0.5), "has no ties for adapters, only linear"),
    ],
)
def test_what_it_cannot_is_said_before_the_start(recipe: object, said: str, family: Path, tmp_path: Path) -> None:
    with running(LlamaCppServer(family / "base", adapters(family))) as server:
        plan = backend(server, "llama.cpp", tmp_path).plan(recipe)  # pyright: ignore[reportArgumentType]  # a recipe
        assert isinstance(plan, Unsupported)
        assert server.asked == []
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(plan.reason)


def test_two_sets_of_scales_are_never_under_way_at_once(family: Path, tmp_path: Path) -> None:
    import asyncio

    async def ask() -> None:
        service = backend(server, "llama.cpp", tmp_path, max_in_flight=4)

        async def one(weight: float) -> None:
            async with service.hold(merge({"one": weight})) as model:
                async for _ in model.answer(REQUESTS):
                    pass

        await asyncio.gather(*(one(weight) for weight in (0.1, 0.2, 0.3)))
        await service.close()

    with running(LlamaCppServer(family / "base", adapters(family))) as server:
        asyncio.run(ask())
        assert server.most_at_once > 1
        assert server.sets_at_once == 1
