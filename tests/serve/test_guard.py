"""Keys, requests a minute and requests under way: who may ask, and when one may ask again."""

import pytest

from evomerge.errors import ConfigError
from evomerge.serve.guard import Gate, Keys, Rate, keys_from
from evomerge.serve.refusals import Refusal


class Clock:
    """The time of a test, in seconds."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_key_opens_and_nothing_else_does() -> None:
    keys = Keys(["first", "second"])
    assert [keys.holder("Bearer first"), keys.holder("bearer second")] == [0, 1]
    for shown in (None, "", "first", "Bearer", "Bearer third", "Bearer firstly", "Basic first", "Bearer fïrst"):
        with pytest.raises(Refusal) as refused:
            keys.holder(shown)
        assert (refused.value.status, refused.value.code) == (401, "invalid_api_key")


def test_without_keys_the_door_stands_open() -> None:
    assert Keys([]).holder(None) == Keys([]).holder("Bearer anything") == 0


def test_keys_come_from_the_environment_alone() -> None:
    assert keys_from(None, {}) == ()
    assert keys_from("K", {"K": "one,two three\n"}) == ("one", "two", "three")
    for value in ("", "  ", "kéy"):
        with pytest.raises(ConfigError, match="--api-key-env: the environment variable K"):
            keys_from("K", {"K": value})


def test_a_key_may_ask_so_often_in_any_minute_and_is_told_when_again() -> None:
    clock = Clock()
    rate = Rate(2, clock)
    rate.count(0)
    clock.now += 20
    rate.count(0)
    with pytest.raises(Refusal) as refused:
        rate.count(0)
    assert (refused.value.status, refused.value.headers) == (429, {"retry-after": "40"})
    rate.count(1)
    clock.now += 40
    rate.count(0)
    with pytest.raises(Refusal) as again:
        rate.count(0)
    assert again.value.headers == {"retry-after": "20"}


def test_no_more_than_so_many_requests_are_under_way() -> None:
    gate = Gate(1)
    with gate.pass_through():
        with pytest.raises(Refusal) as refused, gate.pass_through():
            raise AssertionError("a second one was let in")
        assert (refused.value.status, refused.value.headers) == (429, {"retry-after": "1"})
    with gate.pass_through():
        assert gate.inside == 1
    assert gate.inside == 0
