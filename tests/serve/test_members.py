"""A member that does not answer is left alone for a while, and asked again by one question at a time."""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

import pytest

from evomerge.backends.api.backend import ApiBackend
from evomerge.backends.api.pace import Pace
from evomerge.backends.api.settings import EndpointSettings
from evomerge.exchange import Answer, Generate, Sampling
from evomerge.recipe.tree import Endpoint
from evomerge.serve.members import FAILURES, REST, Member
from tests.support.endpoint import ChatServer, Reply

BROKEN = Reply(500, {"error": {"message": "out of order"}})


class Bench:
    """A member behind a real server, and a clock that the test moves."""

    def __init__(self, server: ChatServer) -> None:
        self.server, self.now, self.told = server, 0.0, list[str]()
        self.made = 0
        self.member = Member("one", Endpoint("one"), self.backend, self.told.append, lambda: self.now)

    def backend(self) -> ApiBackend:
        self.made += 1
        endpoint = EndpointSettings(url=self.server.url, model="m")
        return ApiBackend({"one": endpoint}, {"one": None}, Pace(attempts=1))

    async def ask(self, prompt: str, seconds: float = 30.0) -> Answer:
        return await self.member.ask(Generate(prompt, Sampling(max_tokens=4)), lambda: seconds)

    async def kind(self, prompt: str, seconds: float = 30.0) -> str | None:
        failure = (await self.ask(prompt, seconds)).failure
        return None if failure is None else failure.kind

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        async def closed() -> None:
            try:
                await work
            finally:
                await self.member.close()

        asyncio.run(closed())


@pytest.fixture
def bench() -> Generator[Bench]:
    server = ChatServer(lambda _: "yes")
    yield Bench(server)
    server.close()


def test_a_member_that_fails_time_after_time_rests_and_comes_back(bench: Bench) -> None:
    async def work() -> None:
        bench.server.answer = lambda _: BROKEN
        kinds = [await bench.kind(f"q{number}") for number in range(FAILURES + 2)]
        assert kinds == ["unanswered"] * FAILURES + ["resting"] * 2
        assert bench.server.asked.total() == FAILURES
        bench.now += REST
        assert [await bench.kind("still broken"), await bench.kind("resting")] == ["unanswered", "resting"]
        bench.now += REST
        bench.server.answer = lambda _: "yes"
        assert (await bench.ask("well again")).text == "yes"
        assert await bench.kind("and on") is None

    bench.run(work())
    assert [words.split(":")[0] for words in bench.told] == [
        "one is left alone for 30 seconds", "one is still left alone for 30 seconds", "one answers again",
    ]  # fmt: skip
    assert "out of order" in bench.told[0]


def test_while_one_question_tries_a_member_the_others_go_without(bench: Bench) -> None:
    async def work() -> None:
        bench.server.answer = lambda _: BROKEN
        for number in range(FAILURES):
            await bench.kind(f"q{number}")
        bench.now += REST
        bench.server.answer = lambda _: "yes"
        bench.server.hold_after(0)
        trying = asyncio.create_task(bench.ask("trying"))
        await asyncio.to_thread(bench.server.wait_until_asked, "trying")
        assert await bench.kind("another") == "resting"
        bench.server.hold_after(None)
        assert (await trying).text == "yes"

    bench.run(work())


def test_a_wrong_key_is_a_rest_at_once_and_a_right_one_is_heard_afterwards(bench: Bench) -> None:
    async def work() -> None:
        bench.server.answer = lambda _: Reply(401, {"error": {"message": "no"}})
        assert [await bench.kind("a"), await bench.kind("b")] == ["paused", "resting"]
        bench.server.answer = lambda _: "yes"
        bench.now += REST
        assert await bench.kind("c") is None

    bench.run(work())
    assert bench.made == 2


def test_what_is_late_is_missing_and_is_not_asked_on(bench: Bench) -> None:
    async def work() -> None:
        bench.server.hold_after(0)
        assert await bench.kind("late", 0.1) == "deadline"
        bench.server.hold_after(None)
        assert await bench.kind("again") is None

    bench.run(work())
    assert bench.server.asked["late"] == 1


def test_refused_questions_say_nothing_about_the_member(bench: Bench) -> None:
    async def work() -> None:
        assert await bench.kind("first") is None
        bench.server.answer = lambda _: Reply(400, {"error": {"message": "too long"}})
        assert [await bench.kind(f"q{number}") for number in range(FAILURES + 3)] == ["refused"] * (FAILURES + 3)

    bench.run(work())
    assert bench.told == []
