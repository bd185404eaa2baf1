"""Endpoints as a backend: what it promises about plans, answers, holding and cancelling."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Sequence

import pytest

from evomerge.backends.api.backend import ApiBackend
from evomerge.backends.api.pace import Pace
from evomerge.backends.api.settings import EndpointSettings
from evomerge.backends.protocol import Placement, Unsupported
from evomerge.errors import CandidateError, ConfigError, EndpointPaused
from evomerge.exchange import Answer, Generate, Judge, Request
from evomerge.recipe.tree import Endpoint, Ensemble, Member, Recipe, Source
from tests.support.endpoint import ChatServer, Reply, chat_server

FAST = Endpoint("fast")


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


def backend(url: str, width: int = 4) -> ApiBackend:
    settings = EndpointSettings(url=url, model="m", max_in_flight=width)
    return ApiBackend({"fast": settings, "smart": settings}, {"fast": None, "smart": None}, Pace(sleep=no_sleep))


async def answers(api: ApiBackend, requests: Sequence[Request]) -> list[Answer]:
    try:
        async with api.hold(FAST) as model:
            found = [pair async for pair in model.answer(requests)]
    finally:
        await api.close()
    assert sorted(index for index, _ in found) == list(range(len(requests)))
    return [answer for _, answer in sorted(found, key=lambda pair: pair[0])]


def test_every_request_is_answered_once_with_its_own_index() -> None:
    with chat_server(lambda prompt: f"<{prompt}>") as server:
        found = asyncio.run(answers(backend(server.url), [Generate(str(n)) for n in range(50)]))
    assert [answer.text for answer in found] == [f"<{n}>" for n in range(50)]
    assert set(server.asked.values()) == {1}
    assert server.most_at_once <= 4


def test_nothing_is_asked_for_no_requests() -> None:
    with chat_server(lambda _: "yes") as server:
        assert asyncio.run(answers(backend(server.url), [])) == []
    assert not server.asked


def test_likelihoods_are_refused_and_nothing_is_asked() -> None:
    with chat_server(lambda _: "yes") as server, pytest.raises(ConfigError, match="tells no likelihood"):
        asyncio.run(answers(backend(server.url), [Generate("a"), Judge("b", ("c",))]))
    assert not server.asked


def test_an_endpoint_that_wants_a_person_ends_the_answers() -> None:
    barred = Reply(401, {})
    with chat_server(lambda prompt: barred if prompt == "7" else prompt) as server, pytest.raises(EndpointPaused):
        asyncio.run(answers(backend(server.url, 1), [Generate(str(n)) for n in range(50)]))
    assert server.asked.total() == 8


def test_leaving_the_hold_cancels_what_is_still_asked() -> None:
    async def first_only(api: ApiBackend) -> None:
        async with api.hold(FAST) as model:
            async for _ in model.answer([Generate(str(n)) for n in range(30)]):
                break
        assert len(asyncio.all_tasks()) == 1
        await api.close()
        await api.close()

    with chat_server(lambda prompt: prompt) as server:
        server.hold_after(1)
        asyncio.run(first_only(backend(server.url)))
        assert server.asked.total() <= 5


def test_a_long_list_of_requests_takes_no_more_memory_than_its_answers() -> None:
    async def peak(api: ApiBackend) -> int:
        requests = [Generate(f"{n}") for n in range(200)]
        async with api.hold(FAST) as model:
            tracemalloc.start()
            async for _ in model.answer(requests):
                pass
            found = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        await api.close()
        return found

    with chat_server(lambda _: "x" * 100_000) as server:
        assert asyncio.run(peak(backend(server.url))) < 200 * 100_000 / 2


@pytest.mark.parametrize(
    ("recipe", "planned"),
    [
        (FAST, Placement("m at host", 0)),
        (Ensemble("vote", (Member(FAST), Member(Endpoint("smart")))), Placement("m at host, m at host", 0)),
        (Endpoint("other"), Unsupported("there is no endpoint 'other'")),
        (Source("a"), Unsupported("endpoints are asked, and this recipe merges weights")),
    ],
)
def test_the_plan_says_who_is_asked(recipe: Recipe, planned: Placement | Unsupported) -> None:
    assert backend("https://host/v1").plan(recipe) == planned


@pytest.mark.parametrize("recipe", [Endpoint("other"), Source("a"), Ensemble("vote", (Member(FAST),))])
def test_only_endpoints_are_held(recipe: Recipe) -> None:
    async def hold() -> None:
        async with backend("https://host/v1").hold(recipe):
            pass

    with pytest.raises(CandidateError, match="only the endpoints of the job can be asked"):
        asyncio.run(hold())


class Lazy(Sequence[Request]):
    """Very many requests, each made when it is asked for."""

    def __init__(self, count: int) -> None:
        self.count, self.made = count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Request:  # pyright: ignore[reportIncompatibleMethodOverride]  # no slices
        if index >= self.count:
            raise IndexError(index)
        self.made += 1
        return Generate(f"{index}")


async def first_of(answers: AsyncIterator[tuple[int, Answer]]) -> tuple[int, Answer]:
    return await anext(answers)


def test_of_ten_thousand_queued_requests_only_those_in_flight_are_tasks_with_bodies() -> None:
    async def queued(server: ChatServer, requests: Lazy) -> tuple[int, int]:
        api = backend(server.url, 16)
        async with api.hold(FAST) as model:
            waiting = asyncio.create_task(first_of(model.answer(requests)))
            await asyncio.to_thread(server.wait_until_holding)
            found = len(asyncio.all_tasks()), requests.made
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await api.close()
        return found

    with chat_server(lambda prompt: prompt) as server:
        server.hold_after(0)
        tasks, made = asyncio.run(queued(server, Lazy(10_000)))
    assert tasks <= 16 + 2
    assert made <= 10_000 + 16  # each was looked at once before, to see that it can be asked


def test_who_takes_no_answers_is_waited_for() -> None:
    async def asked_ahead(server: ChatServer) -> int:
        api = backend(server.url, 4)
        async with api.hold(FAST) as model:
            answers = aiter(model.answer([Generate(f"{n}") for n in range(500)]))
            await anext(answers)
            for _ in range(200):
                await asyncio.to_thread(server.wait_until_idle)
        await api.close()
        return server.asked.total()

    with chat_server(lambda prompt: prompt) as server:
        assert asyncio.run(asked_ahead(server)) <= 1 + 4 + 4
