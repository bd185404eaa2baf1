"""The embedded backend answers as plain transformers does, whatever shares a batch, and keeps a backend's promises."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.backends.local import LocalBackend
from evomerge.backends.protocol import Placement
from evomerge.backends.settings import LocalSettings
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import BackendError, CandidateError, ConfigError
from evomerge.exchange import Answer, Generate, Judge, Message, Request, Sampling
from evomerge.recipe.tree import Source, WeightRecipe
from evomerge.testing.backends import BackendCase, answers, check_backend
from tests.support.models import EOS, save_model, save_tokenizer

PROMPTS = ("a", "sort:dbca=", "17+4=", "rev:abcdefgh=", "sort:dbca=")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    save_model(root / "a", 1)
    save_model(root / "b", 2)
    return root


def local(**settings: object) -> LocalBackend:
    return LocalBackend(LocalSettings.model_validate({"device": "cpu"} | settings), WeightStore())


def asked(backend: LocalBackend, recipe: WeightRecipe, requests: Sequence[Request]) -> list[Answer]:
    async def ask() -> list[Answer]:
        async with backend.hold(recipe) as model:
            return await answers(model, requests)

    return asyncio.run(ask())


def source(folder: Path) -> WeightRecipe:
    return WeightStore().resolve(Source(str(folder)), folder)


def oracle(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def generated(folder: Path, prompt: str, tokens: int) -> list[int]:
    ids = AutoTokenizer.from_pretrained(folder)(prompt, return_tensors="pt", return_token_type_ids=False)
    found = oracle(folder).generate(**ids, max_new_tokens=tokens, do_sample=False)
    return found[0, ids["input_ids"].shape[1] :].tolist()


def written(folder: Path, prompt: str, tokens: int) -> str:
    ids = generated(folder, prompt, tokens)
    return AutoTokenizer.from_pretrained(folder).decode(ids, skip_special_tokens=True)


def test_the_backend_keeps_the_promises_of_the_protocol(folder: Path) -> None:
    case = BackendCase(
        recipe=source(folder / "a"),
        other=source(folder / "b"),
        unknown=Source(str(folder / "nowhere")),
        prompts=PROMPTS[:4],
        parts=("ab", "c"),
    )
    asyncio.run(check_backend(local(), case))


def test_a_batch_of_prompts_is_answered_as_transformers_generates_each_alone(folder: Path) -> None:
    lengths = (12, 3, 1, 20, 12)
    requests = [Generate(prompt, Sampling(most)) for prompt, most in zip(PROMPTS, lengths, strict=True)]
    found = asked(local(), source(folder / "a"), requests)
    assert [answer.text for answer in found] == [
        written(folder / "a", prompt, most) for prompt, most in zip(PROMPTS, lengths, strict=True)
    ]
    assert [answer.usage.prompt_tokens for answer in found] == [1 + len(prompt) for prompt in PROMPTS]
    assert len({answer.text for answer in found}) == len(PROMPTS)


def test_an_end_token_ends_an_answer_and_counts_as_written(folder: Path, tmp_path: Path) -> None:
    end = generated(folder / "a", PROMPTS[1], 12)[5]
    save_model(tmp_path / "ending", 1, eos_token_id=[EOS, end])
    expected = generated(tmp_path / "ending", PROMPTS[1], 12)
    assert expected[-1] == end
    [answer] = asked(local(), source(tmp_path / "ending"), [Generate(PROMPTS[1], Sampling(12))])
    assert answer.text == AutoTokenizer.from_pretrained(folder / "a").decode(expected[:-1], skip_special_tokens=True)
    assert (answer.finish, answer.usage.completion_tokens) == ("stop", len(expected))


@pytest.mark.parametrize("start", [0, 2, 5])
def test_a_stop_string_ends_the_answer_where_it_begins(folder: Path, start: int) -> None:
    whole = written(folder / "a", PROMPTS[3], 12)
    stop = whole[start : start + 3]
    sampling = Sampling(12, stop=("\x00never", stop))
    [answer] = asked(local(), source(folder / "a"), [Generate(PROMPTS[3], sampling)])
    assert (answer.text, answer.finish) == (whole[: whole.index(stop)], "stop")
    assert answer.usage.completion_tokens == whole.index(stop) + 3


def test_an_answer_that_reaches_its_length_says_so(folder: Path) -> None:
    [answer] = asked(local(), source(folder / "a"), [Generate("ab", Sampling(5))])
    assert (answer.finish, answer.usage.completion_tokens) == ("length", 5)


def test_likelihoods_are_those_of_logits_computed_by_hand(folder: Path) -> None:
    continuations = ("x", "abc", "", "abcabc")
    found = asked(local(), source(folder / "a"), [Judge(prompt, continuations) for prompt in PROMPTS])
    tokenizer, model = AutoTokenizer.from_pretrained(folder / "a"), oracle(folder / "a")
    for prompt, answer in zip(PROMPTS, found, strict=True):
        start = len(tokenizer.encode(prompt))
        for continuation, likelihood in zip(continuations, answer.likelihoods, strict=True):
            ids = tokenizer.encode(prompt + continuation)
            with torch.no_grad():
                logprobs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            expected = sum(logprobs[place - 1, ids[place]].item() for place in range(start, len(ids)))
            assert likelihood.logprob == pytest.approx(expected, abs=2e-5)
            assert likelihood.tokens == len(continuation)


def test_messages_go_through_the_chat_template_without_a_second_start_token(folder: Path) -> None:
    chat = (Message("system", "be"), Message("user", "hi"))
    text = "[system]be[user]hi>"  # the tokenizer puts <bos> before it, as the template does
    found = asked(
        local(), source(folder / "a"), [Generate(chat), Generate(text), Judge(chat, ("ok",)), Judge(text, ("ok",))]
    )
    assert found[0] == found[1]
    assert found[2] == found[3]


def test_messages_without_a_chat_template_get_a_sentence(tmp_path: Path) -> None:
    save_model(tmp_path / "plain", 1)
    save_tokenizer(tmp_path / "plain", template=None)
    (tmp_path / "plain" / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match="has no chat template"):
        asked(local(), source(tmp_path / "plain"), [Generate((Message("user", "hi"),))])


def test_a_prompt_beyond_the_context_fails_alone_and_a_long_one_is_cut_at_it(folder: Path) -> None:
    requests = [Generate("a" * 64), Generate("a" * 60, Sampling(50)), Judge("a" * 60, ("b", "bbbb")), Generate("ab")]
    found = asked(local(), source(folder / "a"), requests)
    assert [answer.failure.kind if answer.failure else None for answer in found] == ["context", None, "context", None]
    assert (found[1].finish, found[1].usage.completion_tokens) == ("length", 3)


def test_a_sampled_answer_depends_on_its_seed_and_not_on_its_batch(folder: Path) -> None:
    def drawn(seed: int, most: int = 12) -> Request:
        return Generate("sort:", Sampling(most, temperature=1.5, top_p=0.95, seed=seed))

    recipe = source(folder / "a")
    state = torch.get_rng_state()
    together = asked(local(), recipe, [drawn(1), drawn(2), drawn(1), Generate("a" * 30), drawn(1, 5)])
    [alone] = asked(local(), recipe, [drawn(1)])
    assert together[0] == together[2] == alone
    assert together[1] != together[0]
    assert (alone.text or "").startswith(together[4].text or "none")
    assert torch.equal(torch.get_rng_state(), state)


def test_sampling_draws_tokens_as_often_as_they_are_likely(folder: Path) -> None:
    [judged] = asked(local(), source(folder / "a"), [Judge("sort:", tuple("abcdefghijklmnopqrstuvwxyz"))])
    likeliest = max(range(26), key=lambda letter: judged.likelihoods[letter].logprob)
    letter, chance = chr(97 + likeliest), pow(2.718281828459045, judged.likelihoods[likeliest].logprob)
    draws = [Generate("sort:", Sampling(1, temperature=1.0, seed=seed)) for seed in range(1000)]
    share = sum(answer.text == letter for answer in asked(local(), source(folder / "a"), draws)) / 1000
    assert share == pytest.approx(chance, abs=4 * (chance * (1 - chance) / 1000) ** 0.5)


def test_a_narrow_top_p_or_a_low_temperature_is_greedy(folder: Path) -> None:
    narrow, cold = Sampling(8, temperature=1.0, top_p=1e-6, seed=3), Sampling(8, temperature=1e-6, seed=3)
    found = asked(local(), source(folder / "a"), [Generate("sort:", s) for s in (narrow, cold, Sampling(8))])
    assert found[0] == found[1] == found[2]


def test_a_model_that_answers_with_nan_is_the_recipes_fault(tmp_path: Path) -> None:
    model = oracle(save_model(tmp_path / "large", 1))
    for layer in model.model.layers:
        layer.mlp.down_proj.weight.data *= 1e38
    model.save_pretrained(tmp_path / "large")
    for request in (Generate("ab"), Judge("ab", ("c",))):
        with pytest.raises(CandidateError, match="too large"):
            asked(local(), source(tmp_path / "large"), [request])


def test_a_plan_says_what_is_held_and_the_memory_it_takes(folder: Path) -> None:
    plan = local(dtype="bfloat16").plan(source(folder / "a"))
    assert isinstance(plan, Placement)
    assert "checkpoint" in plan.summary
    assert "bfloat16 on cpu" in plan.summary
    parameters = sum(parameter.numel() for parameter in oracle(folder / "a").parameters())
    assert plan.memory_bytes >= 2 * parameters


def test_a_device_that_is_not_there_is_said_before_anything_is_held(folder: Path) -> None:
    plan = local(device="cuda:99").plan(source(folder / "a"))
    assert "cuda:99" in getattr(plan, "reason", "")


def test_a_closed_backend_holds_nothing(folder: Path) -> None:
    backend = local()
    asyncio.run(backend.close())
    with pytest.raises(BackendError, match="closed"):
        asked(backend, source(folder / "a"), [])


@pytest.mark.parametrize(("settings", "threads"), [({}, 1), ({"threads": 3}, 3)])
def test_a_small_model_gets_one_thread_unless_the_job_says_otherwise(
    folder: Path, settings: dict[str, int], threads: int
) -> None:
    backend = local(**settings)
    asked(backend, source(folder / "a"), [])
    assert backend._thread.submit(torch.get_num_threads).result() == threads
