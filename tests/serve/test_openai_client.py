"""The official client of OpenAI's API talks to a served ensemble as it does to OpenAI's servers."""

import asyncio
from collections.abc import Generator

import openai
import pytest

from tests.serve.conftest import KEY
from tests.support.endpoint import ChatServer
from tests.support.served import Served, served, write_recipe


@pytest.fixture(scope="module")
def keyed(members: dict[str, ChatServer], tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    """The ensemble behind a key."""
    folder = tmp_path_factory.mktemp("keyed") / "ensemble"
    write_recipe(folder, members)
    with served(folder, "--api-key-env", "CLIENTS", CLIENTS=KEY) as running:
        yield running


@pytest.fixture
def client(keyed: Served) -> Generator[openai.OpenAI]:
    with openai.OpenAI(base_url=keyed.url, api_key=KEY, max_retries=0) as client:
        yield client


def test_a_chat_is_answered_with_usage_and_headers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="ensemble", messages=[{"role": "user", "content": "3+4="}],
        max_tokens=9, temperature=0, stop=["\n"], seed=1,
    )  # fmt: skip
    found = raw.parse()
    assert found.choices[0].message.content == "red makes 7.0"
    assert found.choices[0].finish_reason == "stop"
    assert found.usage is not None
    assert found.usage.prompt_tokens == 21
    assert float(raw.headers["x-evomerge-cost-usd"]) > 0


def test_a_chat_is_streamed(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="ensemble", messages=[{"role": "user", "content": "3+4="}], stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(stream)
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "red makes 7.0"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 21


def test_a_completion_is_answered_and_streamed(client: openai.OpenAI) -> None:
    assert client.completions.create(model="ensemble", prompt="3+4=").choices[0].text == "red makes 7.0"
    streamed = client.completions.create(model="ensemble", prompt="3+4=", stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == "red makes 7.0"


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["ensemble"]
    assert client.models.retrieve("ensemble").owned_by == "evomerge"


def test_errors_are_those_of_the_client(client: openai.OpenAI, keyed: Served) -> None:
    question: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-x", messages=question)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="ensemble", messages=question, n=2)
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "n")
    with (
        openai.OpenAI(base_url=keyed.url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.chat.completions.create(model="ensemble", messages=question)


def test_many_questions_at_once_are_all_answered(keyed: Served) -> None:
    async def ask() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=keyed.url, api_key=KEY) as client:
            found = await asyncio.gather(
                *(
                    client.chat.completions.create(
                        model="ensemble", messages=[{"role": "user", "content": f"q{number}"}]
                    )
                    for number in range(40)
                )
            )
            return [one.choices[0].message.content for one in found]

    assert asyncio.run(ask()) == ["red makes 7.0"] * 40
