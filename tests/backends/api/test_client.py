"""The client of one endpoint, against a real server: what is asked again, what is missing, and what needs a person."""

import asyncio
import random
from collections.abc import Callable
from email.utils import formatdate

import pytest

from evomerge.backends.api.client import IN_A_ROW, Client
from evomerge.backends.api.faults import MOST_SECONDS
from evomerge.backends.api.pace import PATIENT_FACTOR, Pace
from evomerge.backends.api.settings import EndpointSettings
from evomerge.errors import ConfigError, EndpointPaused
from evomerge.exchange import Answer, Generate, Message, Sampling, Usage
from tests.support.endpoint import ChatServer, Reply, chat, chat_server, usage

KEY = "canary-5f1c"
NOW = 1_700_000_000.0


class Waits:
    """A clock that nobody has to wait for: it goes on by what it is asked to sleep, and remembers it."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.time = 0.0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    def pace(self) -> Pace:
        return Pace(sleep=self.sleep, now=lambda: NOW, clock=lambda: self.time, dice=random.Random(3))


def in_turn(*replies: Reply | str) -> Callable[[str], Reply | str]:
    """Answer with one reply after the other, and with the last one for ever."""
    left = list(replies)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def error(status: int, message: str = "", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"error": {"message": message}}, named)


def ask(
    server: ChatServer, *prompts: str, waits: Waits | None = None, key: str | None = KEY, **settings: object
) -> list[Answer]:
    """Ask each prompt, one after the other, and return the answers."""
    named = EndpointSettings.model_validate({"url": server.url, "model": "m", "api_key_env": "FAST_KEY", **settings})

    async def all_of_them() -> list[Answer]:
        client = Client("fast", named, key, (waits or Waits()).pace())
        try:
            return [await client.ask(Generate(prompt)) for prompt in prompts]
        finally:
            await client.close()

    return asyncio.run(all_of_them())


def test_an_answer_comes_with_its_text_and_usage_and_the_key_is_sent() -> None:
    with chat_server(lambda prompt: prompt.upper()) as server:
        assert ask(server, "hello") == [Answer("HELLO", usage=Usage(7, 5))]
    assert server.keys == [f"Bearer {KEY}"]


def test_without_a_key_none_is_sent() -> None:
    with chat_server(lambda _: "yes") as server:
        ask(server, "hello", key=None)
    assert server.keys == [None]


def test_messages_and_sampling_are_asked_as_they_are() -> None:
    async def one(url: str) -> None:
        client = Client("fast", EndpointSettings(url=url, model="m"), None, Pace())
        turns = (Message("system", "be brief"), Message("user", "hi"))
        await client.ask(Generate(turns, Sampling(9, 0.5, 0.9, ("\n",), 4)))
        await client.close()

    with chat_server(lambda _: "yes") as server:
        asyncio.run(one(server.url))
    (body,) = server.bodies
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["\n"],
        "seed": 4,
    }


def test_further_keys_of_a_request_are_sent_and_null_leaves_one_out() -> None:
    further = {"max_tokens": None, "max_completion_tokens": 500, "temperature": None, "reasoning_effort": "low"}
    with chat_server(lambda _: "yes") as server:
        ask(server, "hello", request=further)
    (body,) = server.bodies
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "max_completion_tokens": 500,
        "reasoning_effort": "low",
    }


@pytest.mark.parametrize(
    "fault",
    [
        error(429),
        error(500),
        error(503, "overloaded"),
        error(408),
        error(409),
        Reply(reset=True),
        Reply(promised=9, body={"choices": []}),
        Reply(body=b'{"choices": [{"mess'),
        Reply(body={"choices": []}),
        Reply(body={"choices": [{"message": {"content": "4"}}]}),
        Reply(body={"choices": [{"message": {"content": "4"}, "finish_reason": "error"}], "usage": usage("4")}),
        Reply(body={"error": {"code": 502, "message": "too late to say so"}}),
        Reply(body=["no object"]),
    ],
)
def test_what_may_be_answered_later_is_asked_again(fault: Reply) -> None:
    waits = Waits()
    with chat_server(in_turn(fault, fault, chat("at last"))) as server:
        (answer,) = ask(server, "hello", waits=waits)
    assert answer.text == "at last"
    assert server.asked["hello"] == 3
    assert len(waits.slept) == 2


def test_waits_are_drawn_below_a_bound_that_doubles() -> None:
    waits = Waits()
    with chat_server(in_turn(error(500))) as server:
        (answer,) = ask(server, "hello", waits=waits)
    assert answer.failure is not None
    bounds = [0.5, 1.0, 2.0, 4.0, 8.0]
    assert len(waits.slept) == len(bounds)
    assert all(0 <= waited <= bound for waited, bound in zip(waits.slept, bounds, strict=True))
    assert len(set(waits.slept)) == len(bounds)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "7"}, 7.0),
        ({"Retry_After": "7", "retry_after_ms": "250"}, 0.25),
        ({"Retry_After": formatdate(NOW + 12, usegmt=True)}, 12.0),
        ({"Retry_After": formatdate(NOW - 12, usegmt=True)}, 0.0),
        ({"Retry_After": "86400"}, MOST_SECONDS),
    ],
)
def test_a_wait_that_the_server_names_is_honoured_up_to_a_cap(headers: dict[str, str], seconds: float) -> None:
    waits = Waits()
    with chat_server(in_turn(error(429, **headers), chat("yes"))) as server:
        ask(server, "hello", waits=waits)
    assert waits.slept == [seconds]


def test_a_wait_that_cannot_be_read_is_drawn() -> None:
    waits = Waits()
    with chat_server(in_turn(error(429, Retry_After="soon"), chat("yes"))) as server:
        ask(server, "hello", waits=waits)
    assert 0 <= waits.slept[0] <= 0.5


def test_a_request_that_is_never_answered_is_missing_and_says_why() -> None:
    with chat_server(lambda prompt: error(500, "boom") if prompt == "bad" else "yes") as server:
        bad, good = ask(server, "bad", "good")
    assert (bad.text, good.text) == (None, "yes")
    assert bad.failure is not None
    assert bad.failure.kind == "unanswered"
    assert bad.failure.message == f"endpoint 'fast' (m at {server.url[7:-3]}): it answered 500: boom"
    assert server.asked["bad"] == 6


def test_an_answer_that_cannot_be_read_is_asked_three_times_and_then_missing() -> None:
    with chat_server(lambda _: Reply(body=b"<html>")) as server:
        (answer,) = ask(server, "hello")
    assert answer.failure is not None
    assert "not JSON" in answer.failure.message
    assert server.asked["hello"] == 3


def test_a_refused_request_is_missing_and_not_asked_again() -> None:
    with chat_server(lambda prompt: error(400, "too long") if prompt == "long" else "yes") as server:
        _, long = ask(server, "short", "long")
    assert long.failure is not None
    assert long.failure.kind == "refused"
    assert server.asked["long"] == 1


@pytest.mark.parametrize(
    ("content", "finish", "text"),
    [(None, "content_filter", ""), ("", "stop", ""), ("half an ans", "length", "half an ans")],
)
def test_filtered_empty_and_cut_answers_are_answers(content: str | None, finish: str, text: str) -> None:
    with chat_server(lambda _: chat(content, finish)) as server:
        (answer,) = ask(server, "hello")
    assert (answer.text, answer.failure) == (text, None)
    assert answer.finish == ("length" if finish == "length" else "stop")
    assert server.asked["hello"] == 1


def test_a_content_in_parts_is_joined() -> None:
    parts = [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}]
    body = {"choices": [{"message": {"content": parts}}], "usage": usage("42")}
    with chat_server(lambda _: Reply(body=body)) as server:
        (answer,) = ask(server, "hello")
    assert answer.text == "42"


@pytest.mark.parametrize(
    ("fault", "hint"),
    [
        (error(401, f"wrong key {KEY}"), "see that FAST_KEY holds a key"),
        (error(403), "see that FAST_KEY holds a key"),
        (error(429, "You exceeded your current quota"), "see that FAST_KEY holds a key"),
    ],
)
def test_an_endpoint_that_wants_no_more_is_left_alone_and_the_key_is_not_told(fault: Reply, hint: str) -> None:
    with chat_server(lambda _: fault) as server, pytest.raises(EndpointPaused) as caught:
        ask(server, "hello", "again")
    assert hint in str(caught.value)
    assert KEY not in str(caught.value)
    assert server.asked.total() == 1


def test_a_missing_key_is_asked_for_by_the_name_of_its_setting() -> None:
    named = EndpointSettings(url="http://127.0.0.1:1/v1", model="m")

    async def one(url: str) -> None:
        client = Client("fast", named.model_copy(update={"url": url}), None, Pace())
        try:
            await client.ask(Generate("hello"))
        finally:
            await client.close()

    with chat_server(lambda _: error(401)) as server, pytest.raises(EndpointPaused, match="name the environment var"):
        asyncio.run(one(server.url))


@pytest.mark.parametrize(
    "fault", [error(404, "no such model"), error(405), Reply(301, {}, {"Location": "http://127.0.0.1:1/v1"})]
)
def test_a_wrong_address_or_model_is_a_mistake_of_the_job_and_no_redirect_is_followed(fault: Reply) -> None:
    with (
        chat_server(lambda _: fault) as server,
        pytest.raises(ConfigError, match=r"endpoint 'fast'.*check url and model"),
    ):
        ask(server, "hello")
    assert server.asked.total() == 1


def test_an_endpoint_that_refuses_everything_is_a_mistake_of_the_job() -> None:
    sentence = "temperature is not known here; it refuses every request of this job"
    with (
        chat_server(lambda _: error(400, "temperature is not known here")) as server,
        pytest.raises(ConfigError, match=sentence),
    ):
        ask(server, *map(str, range(20)))
    assert server.asked.total() == IN_A_ROW


def test_an_endpoint_that_is_down_is_left_alone() -> None:
    with chat_server(lambda _: "yes") as server:
        pass
    with pytest.raises(
        EndpointPaused, match=r"it cannot be reached .*; that was 13 attempts in a row without an answer; start again"
    ):
        ask(server, *map(str, range(20)))


def test_single_failures_between_answers_pause_nothing() -> None:
    with chat_server(lambda prompt: error(500) if prompt.startswith("bad") else "yes") as server:
        answers = ask(server, *(f"{kind} {n}" for n in range(3 * IN_A_ROW) for kind in ("bad", "good")))
    assert [answer.failure is None for answer in answers] == [False, True] * (3 * IN_A_ROW)


def test_a_server_that_hangs_is_given_up_after_the_timeout_and_asked_again() -> None:
    with chat_server(lambda _: "yes") as server:
        server.hold_after(0)

        async def sleep(_: float) -> None:
            server.hold_after(None)

        async def one() -> Answer:
            named = EndpointSettings(url=server.url, model="m", timeout=0.2)
            client = Client("fast", named, None, Pace(sleep=sleep))
            answer = await client.ask(Generate("hello"))
            await client.close()
            return answer

        assert asyncio.run(one()).text == "yes"
        assert server.asked["hello"] == 2


def test_requests_in_flight_stay_within_the_limit() -> None:
    async def many(url: str) -> None:
        client = Client("fast", EndpointSettings(url=url, model="m", max_in_flight=3), None, Pace())
        await asyncio.gather(*(client.ask(Generate(str(n))) for n in range(40)))
        await client.close()

    with chat_server(lambda _: "yes") as server:
        asyncio.run(many(server.url))
    assert server.asked.total() == 40
    assert server.most_at_once <= 3


def test_a_client_goes_on_after_requests_were_cancelled_while_others_waited() -> None:
    async def contended(server: ChatServer) -> str | None:
        client = Client("fast", EndpointSettings(url=server.url, model="m", max_in_flight=2), None, Pace())
        for _ in range(5):
            server.hold_after(0)
            asked = [asyncio.create_task(client.ask(Generate("held"))) for _ in range(6)]
            await asyncio.to_thread(server.wait_until_holding)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            server.hold_after(None)
        answer = await client.ask(Generate("after"))
        await client.close()
        return answer.text

    with chat_server(lambda _: "yes") as server:
        assert asyncio.run(contended(server)) == "yes"


def test_a_request_that_is_told_to_wait_is_patient() -> None:
    told = error(429, retry_after_ms="100")
    with chat_server(in_turn(*[told] * (6 * PATIENT_FACTOR - 1), chat("at last"))) as server:
        (answer,) = ask(server, "hello")
    assert answer.text == "at last"


def test_an_answer_that_cannot_be_read_counts_apart_from_other_faults() -> None:
    garbled = Reply(body=b"<html>")
    with chat_server(in_turn(error(500), error(429, Retry_After="1"), garbled, garbled, chat("at last"))) as server:
        (answer,) = ask(server, "hello")
    assert answer.text == "at last"


def test_a_quota_of_requests_a_minute_is_waited_for() -> None:
    busy = error(429, "Quota exceeded for requests per minute")
    with chat_server(in_turn(busy, chat("yes"))) as server:
        (answer,) = ask(server, "hello")
    assert answer.text == "yes"


def test_an_empty_account_stops_spending_whatever_the_status() -> None:
    poor = error(400, "Your credit balance is too low to access the API")
    with chat_server(lambda _: poor) as server, pytest.raises(EndpointPaused, match="credit balance"):
        ask(server, "hello")


def test_after_an_endpoint_wanted_no_more_nothing_is_sent() -> None:
    async def two(url: str) -> None:
        client = Client("fast", EndpointSettings(url=url, model="m"), None, Waits().pace())
        for _ in range(2):
            with pytest.raises(EndpointPaused, match="401"):
                await client.ask(Generate("hello"))
        await client.close()

    with chat_server(lambda _: error(401)) as server:
        asyncio.run(two(server.url))
    assert server.asked.total() == 1


def test_the_model_and_its_fingerprint_are_told_as_the_reply_names_them() -> None:
    body = {**chat("yes").body, "model": "m-2026-01", "system_fingerprint": "fp_1"}
    with chat_server(lambda _: Reply(body=body)) as server:
        (answer,) = ask(server, "hello")
    assert answer.model == "m-2026-01 fp_1"


@pytest.mark.parametrize(
    ("told", "used"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 5}}, (3, 9, 5)),
        ({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 25}, (3, 22, 20)),
        ({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}, (3, 2, 0)),
    ],
)
def test_hidden_reasoning_is_counted_as_written(told: dict[str, object], used: tuple[int, int, int]) -> None:
    with chat_server(lambda _: Reply(body={**chat("yes").body, "usage": told})) as server:
        (answer,) = ask(server, "hello")
    assert answer.usage == Usage(*used)


def test_a_deeply_nested_answer_is_no_answer() -> None:
    with chat_server(lambda _: Reply(body=b"[" * 200_000)) as server:
        (answer,) = ask(server, "hello")
    assert answer.failure is not None
    assert "not JSON" in answer.failure.message


def test_each_sample_has_a_seed_of_its_own_and_the_first_that_of_the_task() -> None:
    async def several(url: str, seed: int | None) -> None:
        client = Client("fast", EndpointSettings(url=url, model="m"), None, Pace())
        for sample in range(3):
            await client.ask(Generate("hello", Sampling(temperature=1.0, seed=seed), sample=sample))
        await client.close()

    with chat_server(lambda _: "yes") as server:
        asyncio.run(several(server.url, 7))
        asyncio.run(several(server.url, None))
    seeds = [body.get("seed") for body in server.bodies]
    assert (seeds[0], seeds[3]) == (7, None)
    drawn = [seed for index, seed in enumerate(seeds) if index not in (0, 3)]
    assert len(set(drawn)) == 4
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in drawn)
