"""The breaker of an endpoint: when nothing is sent, who goes first afterwards, and when an endpoint is given up."""

import asyncio
import random
from collections.abc import Callable

import pytest

from evomerge.backends.api.breaker import FAILURES, Breaker
from evomerge.backends.api.client import Client
from evomerge.backends.api.faults import Down, Refused, Transient
from evomerge.backends.api.pace import Pace
from evomerge.backends.api.settings import EndpointSettings
from evomerge.errors import EndpointPaused
from evomerge.exchange import Generate
from tests.support.endpoint import Reply, chat_server


class Clock:
    """Time that sleeping makes go on; whoever sleeps lets others work meanwhile."""

    def __init__(self) -> None:
        self.time = 0.0

    async def sleep(self, seconds: float) -> None:
        until = self.time + seconds
        for _ in range(20):
            await asyncio.sleep(0)
        self.time = max(self.time, until)

    def pace(self) -> Pace:
        return Pace(sleep=self.sleep, clock=lambda: self.time, dice=random.Random(1))


class Endpoint:
    """Something that is asked through a breaker; `fault` is what becomes of an attempt."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.breaker = Breaker(self.clock.pace())
        self.fault: Callable[[], Exception | None] = lambda: None
        self.moments: list[float] = []
        self.at_once = self.most_at_once = 0

    async def attempt(self) -> Exception | None:
        try:
            async with self.breaker.attempt():
                self.moments.append(self.clock.time)
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                await asyncio.sleep(0)
                self.at_once -= 1
                if (fault := self.fault()) is not None:
                    raise fault
        except (Transient, Refused, Down) as error:
            return error
        return None

    async def attempts(self, count: int) -> list[Exception | None]:
        return [await self.attempt() for _ in range(count)]


def broken(retry_after: float | None = None) -> Callable[[], Exception]:
    return lambda: Transient("no", retry_after)


def test_it_opens_after_failures_in_a_row_and_pauses_twice_as_long_each_time() -> None:
    endpoint = Endpoint()
    endpoint.breaker.known = True
    endpoint.fault = broken()
    asyncio.run(endpoint.attempts(FAILURES + 4))
    assert endpoint.moments == [0.0] * FAILURES + [1.0, 3.0, 7.0, 15.0]


def test_failures_with_answers_between_them_open_nothing() -> None:
    endpoint = Endpoint()
    for _ in range(5):
        endpoint.fault = broken()
        asyncio.run(endpoint.attempts(FAILURES - 1))
        endpoint.fault = lambda: Refused("too long")  # a refusal is an answer
        asyncio.run(endpoint.attempts(1))
    assert endpoint.clock.time == 0


def test_one_goes_first_after_a_pause_and_the_others_follow_its_answer() -> None:
    async def story(endpoint: Endpoint) -> None:
        endpoint.fault = broken()
        await endpoint.attempts(FAILURES)
        endpoint.most_at_once = 0
        endpoint.fault = lambda: Transient("no") if len(endpoint.moments) < FAILURES + 3 else None
        await asyncio.gather(*(endpoint.attempt() for _ in range(8)))

    endpoint = Endpoint()
    asyncio.run(story(endpoint))
    assert endpoint.moments == [0.0] * FAILURES + [1.0, 3.0] + [7.0] * 6
    assert endpoint.most_at_once > 1  # the others were asked together again


def test_a_time_to_come_back_is_kept_by_all() -> None:
    async def story(endpoint: Endpoint) -> None:
        endpoint.fault = broken(30.0)
        await endpoint.attempt()
        endpoint.fault = lambda: None
        await asyncio.gather(*(endpoint.attempt() for _ in range(5)))

    endpoint = Endpoint()
    asyncio.run(story(endpoint))
    assert endpoint.moments == [0.0] + [30.0] * 5


@pytest.mark.parametrize(
    ("known", "told", "probes"),
    [(False, None, 3), (True, None, 8), (True, 5.0, 30)],
)
def test_an_endpoint_that_stays_away_is_given_up(known: bool, told: float | None, probes: int) -> None:
    endpoint = Endpoint()
    endpoint.breaker.known = known
    endpoint.fault = broken(told)
    before = FAILURES if told is None else 1
    found = asyncio.run(endpoint.attempts(before + probes + 2))
    assert [isinstance(fault, Down) for fault in found] == [False] * (before + probes) + [True] * 2
    assert f"no; that was {before + probes} attempts in a row" in str(found[-1])


def test_whoever_is_cancelled_while_going_first_lets_another() -> None:
    async def story(endpoint: Endpoint) -> Exception | None:
        endpoint.fault = broken()
        await endpoint.attempts(FAILURES)
        endpoint.fault = lambda: None
        first = asyncio.create_task(endpoint.attempt())
        await asyncio.sleep(0)
        second = asyncio.create_task(endpoint.attempt())
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        return await second

    endpoint = Endpoint()
    assert asyncio.run(story(endpoint)) is None
    assert len(endpoint.moments) == FAILURES + 1


def test_an_endpoint_that_is_away_for_a_while_loses_no_request() -> None:
    async def through_an_outage(url: str) -> list[str | None]:
        clock = Clock()
        client = Client("fast", EndpointSettings(url=url, model="m", max_in_flight=4), None, clock.pace())
        found = await asyncio.gather(*(client.ask(Generate(f"{n}")) for n in range(40)))
        await client.close()
        return [answer.text for answer in found]

    asked: list[str] = []

    def answer(prompt: str) -> str | Reply:
        asked.append(prompt)
        return Reply(503, {}) if 10 <= len(asked) < 24 else prompt

    with chat_server(answer) as server:
        assert asyncio.run(through_an_outage(server.url)) == [f"{n}" for n in range(40)]


def test_other_endpoints_go_on_while_one_is_down() -> None:
    async def both(up: str, down: str) -> list[str | None]:
        pace = Clock().pace()
        named = (("a", up), ("b", down))
        clients = [Client(name, EndpointSettings(url=url, model="m"), None, pace) for name, url in named]
        good = [asyncio.create_task(clients[0].ask(Generate(f"{n}"))) for n in range(20)]
        bad = [asyncio.create_task(clients[1].ask(Generate(f"{n}"))) for n in range(20)]
        told = await asyncio.gather(*bad, return_exceptions=True)
        assert any(isinstance(one, EndpointPaused) for one in told)
        found = [(await task).text for task in good]
        for client in clients:
            await client.close()
        return found

    with chat_server(lambda prompt: prompt) as up, chat_server(lambda _: Reply(503, {})) as down:
        assert asyncio.run(both(up.url, down.url)) == [f"{n}" for n in range(20)]


def test_an_endpoint_that_was_given_up_is_tried_once_after_each_further_pause() -> None:
    endpoint = Endpoint()
    endpoint.fault = broken()
    asyncio.run(endpoint.attempts(FAILURES + 3))
    tried = len(endpoint.moments)
    endpoint.clock.time += 60
    found = asyncio.run(endpoint.attempts(3))
    assert [isinstance(fault, Down) for fault in found] == [False, True, True]
    assert len(endpoint.moments) == tried + 1
    endpoint.clock.time += 60
    endpoint.fault = lambda: None
    assert asyncio.run(endpoint.attempts(3)) == [None] * 3
