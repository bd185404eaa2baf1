"""Questions and answers as vLLM's completions have them, with the tokenizer of the tiny family."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from evomerge.backends.vllm.asking import Speaker
from evomerge.errors import BackendError, CandidateError
from evomerge.exchange import Generate, Judge, Likelihood, Sampling, Usage

TINY = Path(__file__).resolve().parents[3] / "zoo" / "tiny"
PROMPT = "reverse: abc"


@pytest.fixture(scope="module")
def speaker() -> Speaker:
    return Speaker.of(TINY / "base", 64)


def reply(**choice: Any) -> dict[str, Any]:
    return {"choices": [{"finish_reason": "length", **choice}]}


def test_a_prompt_goes_as_its_tokens_and_all_that_ends_an_answer_is_said(speaker: Speaker) -> None:
    body = speaker.generating(Generate(PROMPT, Sampling(5, 0.5, 0.9, ("\n", ""), 7)))
    ids = list(speaker.text.prompt(PROMPT))
    assert body == {
        "prompt": ids, "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "stop": ["\n"], "stop_token_ids": [2],
        "seed": 7, "return_token_ids": True,
    }  # fmt: skip


def test_no_more_is_asked_for_than_there_is_room(speaker: Speaker) -> None:
    assert speaker.generating(Generate(PROMPT, Sampling(1000)))["max_tokens"] == 64 - len(speaker.text.prompt(PROMPT))


def test_what_no_server_has_to_be_asked_is_answered_here(speaker: Speaker) -> None:
    long = speaker.refusal(Generate("a" * 70))
    assert long is not None
    assert long.failure is not None
    assert long.failure.kind == "context"
    judged = speaker.refusal(Judge("a" * 40, ("b" * 30,)))
    assert judged is not None
    assert judged.failure is not None
    assert judged.failure.kind == "context"
    nothing = speaker.refusal(Generate(PROMPT, Sampling(0)))
    assert nothing is not None
    assert (nothing.text, nothing.finish) == ("", "length")
    assert speaker.refusal(Generate(PROMPT)) is None
    assert speaker.refusal(Judge(PROMPT, ("x",))) is None


@pytest.mark.parametrize(
    ("written", "stop", "reason", "expected"),
    [
        ("cba", (), "length", ("cba", "length")),
        ("cba\ndef", ("\n",), "stop", ("cba", "stop")),
        ("cba def", ("d", " "), "stop", ("cba", "stop")),
        ("cba", (), "stop", ("cba", "stop")),
    ],
)
def test_an_answer_is_what_was_written_up_to_where_it_stops(
    speaker: Speaker, written: str, stop: tuple[str, ...], reason: str, expected: tuple[str, str]
) -> None:
    ids = list(speaker.text.prompt(written))[1:]
    request = Generate(PROMPT, Sampling(20, stop=stop))
    answer = speaker.generated(request, reply(finish_reason=reason, token_ids=ids))
    assert (answer.text, answer.finish) == expected
    assert answer.usage == Usage(len(speaker.text.prompt(PROMPT)), len(ids))


def test_a_token_that_ends_an_answer_is_not_part_of_it(speaker: Speaker) -> None:
    ids = [*list(speaker.text.prompt("ab"))[1:], 2]
    answer = speaker.generated(Generate(PROMPT), reply(finish_reason="length", token_ids=ids))
    assert (answer.text, answer.finish, answer.usage.completion_tokens) == ("ab", "stop", 3)


def test_a_likelihood_is_the_sum_over_the_continuation_alone(speaker: Speaker) -> None:
    [split] = speaker.splits(Judge("ab", ("cd",)))
    told = [None, *({str(token): {"logprob": -float(place)}} for place, token in enumerate(split.ids[1:], 1))]
    assert speaker.judged(split, reply(prompt_logprobs=told)) == Likelihood(-(3.0 + 4.0), 2)
    told[-1] = {str(split.ids[-1]): {"logprob": math.nan}}
    with pytest.raises(CandidateError, match="weights are too large"):
        speaker.judged(split, reply(prompt_logprobs=told))


@pytest.mark.parametrize(
    "wrong", [{}, {"choices": []}, reply(), reply(token_ids=[3], finish_reason="abort"), reply(prompt_logprobs=None)]
)
def test_a_reply_without_an_answer_is_the_servers_failure(speaker: Speaker, wrong: dict[str, Any]) -> None:
    [split] = speaker.splits(Judge("ab", ("cd",)))
    with pytest.raises(BackendError):
        speaker.generated(Generate(PROMPT), wrong)
    with pytest.raises(BackendError):
        speaker.judged(split, wrong)


@pytest.mark.parametrize(
    ("generation", "config", "ends"),
    [
        ({"eos_token_id": [5, 7]}, {"eos_token_id": 9}, {2, 5, 7}),
        (None, {"eos_token_id": 9}, {2, 9}),
        ({}, {"text_config": {"eos_token_id": 11}}, {2, 11}),
        (None, {}, {2}),
    ],
)
def test_an_answer_ends_where_the_models_own_files_say(
    tmp_path: Path, generation: dict[str, Any] | None, config: dict[str, Any], ends: set[int]
) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / "base" / name, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"} | config), encoding="utf-8")
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    assert set(Speaker.of(tmp_path, None).ends) == ends


def test_choices_and_schemas_hold_an_answer(speaker: Speaker) -> None:
    chosen = speaker.generating(Generate(PROMPT, Sampling(5, choices=("yes", "no"))))
    assert chosen["structured_outputs"] == {"choice": ["yes", "no"]}
    fitting = speaker.generating(Generate(PROMPT, Sampling(5, schema='{"type": "integer"}')))
    assert fitting["structured_outputs"] == {"json": '{"type": "integer"}'}
    assert "structured_outputs" not in speaker.generating(Generate(PROMPT, Sampling(5)))
