"""What a client pays and what it does not ask: a reservation around each attempt, and answers that are known."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from evomerge.backends.api.client import Client
from evomerge.backends.api.pace import Pace
from evomerge.backends.api.settings import EndpointSettings
from evomerge.errors import BudgetSpent, EndpointPaused
from evomerge.exchange import Answer, Generate, Request, Sampling, Usage
from tests.support.chaos import Chaos
from tests.support.endpoint import ChatServer, Reply, chat, chat_server

Settled = tuple[Usage | None, float | None]
UNKNOWN: Settled = (None, None)
FREE: Settled = (Usage(), 0.0)


class Purse:
    """A purse that remembers, and has no more than so many tickets."""

    def __init__(self, tickets: int = 10_000) -> None:
        self.tickets = tickets
        self.reserved: list[tuple[str, tuple[int, int], float]] = []
        self.settled: dict[int, Settled] = {}

    async def reserve(self, endpoint: str, most_tokens: tuple[int, int], most_usd: float) -> int:
        await asyncio.sleep(0)
        if len(self.reserved) == self.tickets:
            raise BudgetSpent("no more", "usd")
        self.reserved.append((endpoint, most_tokens, most_usd))
        return len(self.reserved) - 1

    def settle(self, ticket: int, usage: Usage | None, usd: float | None) -> None:
        assert ticket not in self.settled
        self.settled[ticket] = (usage, usd)

    def close(self) -> None:
        """Hold nothing."""

    @property
    def in_turn(self) -> list[Settled]:
        """What became of each reservation."""
        return [self.settled[ticket] for ticket in range(len(self.reserved))]


class Known:
    """Answers by endpoint and request."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, Request], Answer] = {}

    def get(self, endpoint: str, request: Request) -> Answer | None:
        return self.kept.get((endpoint, request))

    def put(self, endpoint: str, request: Request, answer: Answer) -> None:
        assert (endpoint, request) not in self.kept
        self.kept[endpoint, request] = answer

    def close(self) -> None:
        """Hold nothing."""


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


def in_turn(*replies: Reply | str) -> Callable[[str], Reply | str]:
    left = list(replies)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def settings_for(server: ChatServer, **further: Any) -> EndpointSettings:
    known = {"url": server.url, "model": "m", "usd_per_mtok": (2.0, 8.0), **further}
    return EndpointSettings.model_validate(known)


def ask(
    server: ChatServer, purse: Purse, *requests: Request, known: Known | None = None, **further: Any
) -> list[Answer]:
    """Ask requests one after the other."""

    async def each() -> list[Answer]:
        client = Client("fast", settings_for(server, **further), None, Pace(sleep=no_sleep), known, purse)
        try:
            return [await client.ask(request) for request in requests]
        finally:
            await client.close()

    return asyncio.run(each())


def test_what_an_answer_cost_is_settled_and_told() -> None:
    purse = Purse()
    with chat_server(lambda _: "yes") as server:
        (answer,) = ask(server, purse, Generate("hello", Sampling(max_tokens=50)))
        fingerprint = settings_for(server).fingerprint
    cost = (7 * 2 + 3 * 8) / 1e6
    assert answer.usd == pytest.approx(cost)
    assert purse.in_turn == [(Usage(7, 3), pytest.approx(cost))]
    (endpoint, (read, written), usd) = purse.reserved[0]
    assert endpoint == fingerprint
    assert read >= len("hello")
    assert written == 50
    assert usd == pytest.approx((read * 2 + written * 8) / 1e6)


@pytest.mark.parametrize(
    ("fault", "settled"),
    [
        (Reply(429, {}), FREE),
        (Reply(429, {}, {"retry-after-ms": "1"}), FREE),
        (Reply(408, {}), FREE),
        (Reply(500, {}), FREE),
        (Reply(503, {}), FREE),
        (Reply(502, {}), UNKNOWN),  # the gateway gave up, and the model may have gone on
        (Reply(504, {}), UNKNOWN),
        (Reply(reset=True), UNKNOWN),
        (Reply(body={"choices": []}, promised=9), UNKNOWN),
        (Reply(body=b'{"choices": [{"mess'), UNKNOWN),
        (Reply(body={"choices": [{"message": {"content": "4"}}]}), UNKNOWN),  # it does not say what it took
        (Reply(hang=True), UNKNOWN),
        (Reply(late=True, body=chat("yes").body), UNKNOWN),
    ],
)
def test_each_attempt_is_paid_by_itself_and_what_may_have_been_billed_is_not_free(
    fault: Reply, settled: Settled
) -> None:
    purse = Purse()
    with chat_server(in_turn(fault, chat("yes"))) as server:
        (answer,) = ask(server, purse, Generate("hello"), timeout=0.3)
    assert answer.text == "yes"
    assert purse.in_turn == [settled, (Usage(7, 3), pytest.approx(38 / 1e6))]


def test_a_server_that_is_not_there_costs_nothing() -> None:
    purse = Purse()
    with chat_server(lambda _: "yes") as server:
        pass
    (answer,) = ask(server, purse, Generate("hello"))
    assert answer.failure is not None
    assert purse.in_turn == [FREE] * 6


def test_a_refusal_and_a_wrong_key_cost_nothing() -> None:
    purse = Purse()
    with (
        chat_server(lambda prompt: Reply(400, {}) if prompt == "long" else Reply(401, {})) as server,
        pytest.raises(EndpointPaused),
    ):
        ask(server, purse, Generate("long"), Generate("hello"))
    assert purse.in_turn == [FREE, FREE]


def test_a_request_that_is_cancelled_under_way_counts_as_spent() -> None:
    purse = Purse()

    async def cancelled(server: ChatServer) -> None:
        client = Client("fast", settings_for(server), None, Pace(), None, purse)
        asked = [asyncio.create_task(client.ask(Generate(f"{n}"))) for n in range(5)]
        await asyncio.to_thread(server.wait_until_holding)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await client.close()

    with chat_server(lambda _: "yes") as server:
        server.hold_after(0)
        asyncio.run(cancelled(server))
    assert purse.in_turn == [UNKNOWN] * len(purse.reserved)
    assert purse.reserved


def test_nothing_is_sent_that_the_purse_does_not_cover() -> None:
    purse = Purse(tickets=3)
    with chat_server(lambda _: Reply(500, {})) as server, pytest.raises(BudgetSpent, match="no more"):
        ask(server, purse, Generate("hello"))
    assert server.asked.total() == 3
    assert purse.in_turn == [FREE] * 3


def test_an_answer_that_is_known_is_neither_asked_nor_paid_for() -> None:
    purse, known = Purse(), Known()
    with chat_server(lambda prompt: prompt) as server:
        first = ask(server, purse, Generate("a"), Generate("b"), known=known)
        second = ask(server, purse, Generate("b"), Generate("a"), Generate("c"), known=known)
    assert server.asked == {"a": 1, "b": 1, "c": 1}
    assert [answer.text for answer in second] == ["b", "a", "c"]
    assert second[1] is first[0]
    assert len(purse.reserved) == 3


def test_samples_of_one_request_are_answers_of_their_own() -> None:
    known = Known()
    requests = [Generate("a", Sampling(temperature=1.0), sample=sample) for sample in range(3)]
    with chat_server(lambda prompt: prompt) as server:
        ask(server, Purse(), *requests, *requests, known=known)
    assert server.asked.total() == len(known.kept) == 3


def test_only_answers_are_kept() -> None:
    known = Known()
    with chat_server(lambda prompt: Reply(400, {}) if prompt == "long" else chat(None, "content_filter")) as server:
        ask(server, Purse(), Generate("long"), Generate("filtered"), known=known)
    assert [request.prompt for _, request in known.kept] == ["filtered"]


def test_through_faults_of_all_kinds_no_attempt_is_forgotten_and_every_bill_is_covered() -> None:
    purse = Purse()
    chaos = Chaos(lambda prompt: prompt * 2, seed=11, share=0.5, most=2)

    async def through(server: ChatServer) -> list[str | None]:
        settings = settings_for(server, timeout=0.5, max_in_flight=16)
        client = Client("fast", settings, None, Pace(sleep=no_sleep), None, purse)
        found = await asyncio.gather(*(client.ask(Generate(f"question {n}")) for n in range(120)))
        await client.close()
        return [answer.text for answer in found]

    with chat_server(chaos) as server:
        assert asyncio.run(through(server)) == [f"question {n}" * 2 for n in range(120)]
        server.wait_until_idle()
    assert chaos.served.total() == server.asked.total() == len(purse.reserved) == len(purse.settled)
    assert chaos.served["right"] == 120
    known = [usage for usage, _ in purse.in_turn if usage is not None and usage != Usage()]
    assert len(known) == 120
    most = [tokens for (_, tokens, _), settled in zip(purse.reserved, purse.in_turn, strict=True) if settled == UNKNOWN]
    assert server.read <= sum(usage.prompt_tokens for usage in known) + sum(read for read, _ in most)
    assert server.written <= sum(usage.completion_tokens for usage in known) + sum(written for _, written in most)
