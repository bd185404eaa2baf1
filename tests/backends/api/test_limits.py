"""The rates of an endpoint, by a clock that goes on only when somebody sleeps."""

import asyncio

import pytest

from evomerge.backends.api.client import Client
from evomerge.backends.api.limits import Bucket, Limits
from evomerge.backends.api.pace import Pace
from evomerge.backends.api.settings import EndpointSettings
from evomerge.exchange import Generate, Sampling
from tests.support.endpoint import chat_server


class Clock:
    """Time that sleeping makes go on."""

    def __init__(self) -> None:
        self.time = 0.0

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        await asyncio.sleep(0)

    def pace(self) -> Pace:
        return Pace(sleep=self.sleep, clock=lambda: self.time)


async def moments(bucket: Bucket, clock: Clock, amount: float, count: int) -> list[float]:
    """Return when each of some takers had its turn."""
    taken: list[float] = []

    async def take() -> None:
        await bucket.take(amount)
        taken.append(clock.time)

    await asyncio.gather(*(take() for _ in range(count)))
    return taken


@pytest.mark.parametrize("per_minute", [6, 60, 600])
def test_no_minute_has_more_requests_than_agreed_and_what_gathers_in_a_second(per_minute: int) -> None:
    clock = Clock()
    taken = asyncio.run(moments(Bucket(per_minute, 1.0, clock.pace()), clock, 1, 3 * per_minute))
    at_once = max(1, per_minute // 60)
    for begin in taken:
        assert sum(begin <= moment < begin + 60 - 1e-6 for moment in taken) <= per_minute + at_once
    assert taken[-1] == pytest.approx(60 * (3 * per_minute - at_once) / per_minute, rel=1e-6)


def test_unused_room_gathers_no_further_than_it_may() -> None:
    clock = Clock()
    bucket = Bucket(600, 10.0, clock.pace())
    clock.time = 1000.0
    taken = asyncio.run(moments(bucket, clock, 50, 4))
    assert taken == pytest.approx([1000.0, 1000.0, 1005.0, 1010.0])


def test_more_than_there_is_room_for_is_taken_and_owed() -> None:
    clock = Clock()
    taken = asyncio.run(moments(Bucket(60, 10.0, clock.pace()), clock, 40, 3))
    assert taken == pytest.approx([0.0, 40.0, 80.0])


def test_what_was_not_used_comes_back() -> None:
    async def corrected(limits: Limits) -> None:
        for _ in range(10):
            await limits.take(100)
            limits.correct(100, 10)

    clock = Clock()
    asyncio.run(corrected(Limits(None, 600, clock.pace())))
    assert clock.time <= 10
    clock.time = 0.0
    limits = Limits(None, 600, clock.pace())
    asyncio.run(corrected(limits))
    asyncio.run(limits.take(100))
    assert clock.time == pytest.approx(9.0, abs=1.1)


def test_whoever_gives_up_waiting_holds_up_nobody() -> None:
    async def given_up(clock: Clock) -> float:
        bucket = Bucket(60, 1.0, clock.pace())
        await bucket.take(1)
        waiting = [asyncio.create_task(bucket.take(1)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        waiting[1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return clock.time

    assert asyncio.run(given_up(Clock())) <= 2.0


def test_an_endpoint_is_asked_no_faster_than_its_settings_say() -> None:
    async def many(url: str, clock: Clock, **limits: float) -> None:
        settings = EndpointSettings.model_validate({"url": url, "model": "m", "max_in_flight": 3, **limits})
        client = Client("fast", settings, None, clock.pace())
        await asyncio.gather(*(client.ask(Generate(f"{n:02}", Sampling(max_tokens=82))) for n in range(30)))
        await client.close()

    with chat_server(lambda _: "x" * 53) as server:  # 7 tokens read and 53 written, of at most 18 and 82
        for limits, least in (
            ({"requests_per_minute": 60.0}, 29.0),
            ({"tokens_per_minute": 600.0}, 30 * 6 - 10.0 - 3 * 10.0),
        ):
            clock = Clock()
            asyncio.run(many(server.url, clock, **limits))
            assert clock.time >= least - 1e-6
            assert clock.time <= 30 * 10
