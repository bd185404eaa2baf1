"""The settings of vLLM refuse what would not be the server that is meant."""

from typing import Any

import pytest
from pydantic import ValidationError

from evomerge.backends.vllm.settings import VllmSettings


def made(**settings: Any) -> VllmSettings:
    return VllmSettings.model_validate({"kind": "vllm", **settings})


def test_arguments_are_passed_on_under_vllms_own_names() -> None:
    assert made(args={"max_model_len": 64, "enforce-eager": True}).args == {"max-model-len": 64, "enforce-eager": True}


def test_one_server_is_started_for_every_share_of_the_gpus() -> None:
    assert [made(gpus=4).servers, made(gpus=4, tensor_parallel=2).servers, made().servers] == [4, 2, 1]


def test_an_address_is_the_servers_whether_or_not_the_version_stands_behind_it() -> None:
    assert made(url="http://127.0.0.1:8000/v1/").url == "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("wrong", "because"),
    [
        ({"args": {"port": 8000}}, "'port' is set by evomerge"),
        ({"args": {"no-enable_lora": True}}, "is set by evomerge"),
        ({"args": {"--max-model-len": 64}}, "without dashes"),
        ({"url": "127.0.0.1:8000"}, "write it as http"),
        ({"url": "http://key@host"}, "write it as http"),
        ({"url": "http://host", "gpus": 2}, "gpus cannot be chosen"),
        ({"api_key_env": "KEY"}, "belongs to a server at `url`"),
        ({"gpus": 3, "tensor_parallel": 2}, "cannot be shared out"),
        ({"slots": 0}, "greater than or equal to 1"),
        ({"kind": "local"}, "'vllm'"),
    ],
)
def test_wrong_settings_are_refused_with_a_reason(wrong: dict[str, Any], because: str) -> None:
    with pytest.raises(ValidationError, match=because):
        made(**wrong)
