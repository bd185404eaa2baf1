"""Endpoints as a job writes them, their keys, and what requests may cost."""

import pytest

from evomerge.backends.api.backend import MissingKey, keys_from
from evomerge.backends.api.prices import TOKENS_A_MESSAGE, cost_at_most
from evomerge.backends.api.settings import EndpointSettings
from evomerge.errors import ConfigError
from evomerge.exchange import Generate, Judge, Message, Sampling
from evomerge.recipe.reading import Document


def endpoint(**changed: object) -> EndpointSettings:
    return Document({"url": "https://host/v1", "model": "m", **changed}, "job.yaml", {}).parse(EndpointSettings)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("host/v1", "no address of http or https"),
        ("ftp://host/v1", "no address of http or https"),
        ("http:///v1", "no address of http or https"),
        ("https://me:secret@host/v1", "holds no user or password"),
        ("https://host/v1?key=secret", "more than scheme, host and path"),
        ("https://host/v1#m", "more than scheme, host and path"),
        ("https://host:port/v1", "is no address"),
        ("https://ho st/v1", "more than scheme, host and path"),
    ],
)
def test_an_address_that_cannot_be_is_said_to_be(url: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        endpoint(url=url)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("api_key_env", "sk-live key"),
        ("usd_per_mtok", [1]),
        ("usd_per_mtok", [-1, 1]),
        ("max_in_flight", 0),
        ("timeout", 0),
        ("model", ""),
        ("request", {"messages": []}),
        ("request", {"stream": True}),
        ("request", {"prompt": "x"}),
        ("request", {"max_tokens": None}),
        ("request", {"max_tokens": None, "max_completion_tokens": "500"}),
        ("request", {"max_tokens": 0}),
        ("dialect", "opnai"),
        ("revision", ""),
        ("likelihoods", "echoes"),
        ("likelihoods", "echo"),
        ("structured", "tools"),
        ("requests_per_minute", 0),
        ("tokens_per_minute", -1),
    ],
)
def test_a_setting_that_cannot_be_names_its_key(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"job.yaml.*{key}"):
        endpoint(**{key: value})


def test_the_fingerprint_is_of_what_decides_the_answers_alone() -> None:
    plain = endpoint().fingerprint
    assert plain == endpoint(url="https://host/v1/", max_in_flight=2, usd_per_mtok=[1, 2], api_key_env="K").fingerprint
    assert plain != endpoint(model="n").fingerprint
    assert plain != endpoint(url="https://host/v2").fingerprint
    assert plain == endpoint(requests_per_minute=3, tokens_per_minute=4, timeout=5, dialect="openai").fingerprint
    others = [
        endpoint(request={"reasoning_effort": "low"}),
        endpoint(dialect="anthropic"),
        endpoint(dialect="completions"),
        endpoint(dialect="completions", likelihoods="echo"),
        endpoint(likelihoods="top_logprobs"),
        endpoint(revision="2026-01"),
        endpoint(revision="2026-02"),
        endpoint(logprobs=False),
        endpoint(structured=None),
        endpoint(structured="structured_outputs"),
    ]
    assert len({plain, *(other.fingerprint for other in others)}) == 1 + len(others)
    assert plain == "8cd6b6c436b89fbf"  # as it always was: journals name it


def test_keys_come_from_the_environment() -> None:
    endpoints = {"fast": endpoint(api_key_env="FAST"), "open": endpoint()}
    assert keys_from(endpoints, {"FAST": " abc\n"}) == {"fast": "abc", "open": None}


@pytest.mark.parametrize(
    "environment", [{}, {"FAST": "  "}, {"FAST": "se cret"}, {"FAST": "se\ncret"}, {"FAST": "schlüssel"}]
)
def test_a_key_that_is_missing_or_none_is_said_by_its_variable_and_never_shown(environment: dict[str, str]) -> None:
    with pytest.raises(MissingKey, match=r"endpoints\.fast\.api_key_env: the environment variable FAST") as caught:
        keys_from({"fast": endpoint(api_key_env="FAST")}, environment)
    assert not any(value.strip() and value in str(caught.value) for value in environment.values())


def test_the_highest_cost_counts_a_token_a_byte_and_answers_at_full_length() -> None:
    requests = [
        Generate("é" * 10, Sampling(max_tokens=100)),
        Generate((Message("user", "abc"),), Sampling(max_tokens=5)),
    ]
    cost = cost_at_most(endpoint(usd_per_mtok=[2, 8]), requests)
    assert cost == pytest.approx((2 * (20 + 3 + 2 * TOKENS_A_MESSAGE) + 8 * 105) / 1e6)
    longer = cost_at_most(endpoint(usd_per_mtok=[0, 1], request={"max_completion_tokens": 1000}), requests)
    assert longer == pytest.approx(2000 / 1e6)
    assert cost_at_most(endpoint(), requests) is None
    judged = cost_at_most(endpoint(usd_per_mtok=[2, 8]), [Judge("a", ("b", "cc"))])
    assert judged == pytest.approx((2 * (2 * (1 + TOKENS_A_MESSAGE) + 3) + 8 * 2) / 1e6)


def test_the_longest_answer_that_further_keys_ask_for_bounds_the_cost() -> None:
    assert endpoint().max_tokens is None
    assert endpoint(request={"max_tokens": None, "max_completion_tokens": 500}).max_tokens == 500
    assert endpoint(request={"max_tokens": 600, "max_completion_tokens": 500}).max_tokens == 600


@pytest.mark.parametrize(
    ("dialect", "sentence"),
    [("openai", "it knows top_logprobs"), ("anthropic", "it tells no likelihoods; leave it out")],
)
def test_a_dialect_that_cannot_tell_likelihoods_so_says_what_it_can(dialect: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"the dialect {dialect} has no echo: {sentence}"):
        endpoint(dialect=dialect, likelihoods="echo")
