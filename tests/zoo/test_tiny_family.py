"""What the tiny family promises to everything that is tested with it: its sizes, its skills, that it loads anywhere.

It is read with transformers and peft alone, so that a fault of our own loaders cannot hide in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

TINY = Path(__file__).parents[2] / "zoo" / "tiny"
SKILLS = ("reverse", "sort", "shift", "add")
USEFUL = [*((skill, skill) for skill in SKILLS), ("sort_shift", "sort"), ("sort_shift", "shift")]
USELESS = ("double", "noise")
ADAPTERS = tuple(sorted(path.name for path in (TINY / "adapters").iterdir()))
MODELS = ("base", *(f"experts/{skill}" for skill in SKILLS))
PER_SKILL = 300

Items = list[dict[str, str]]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(TINY / "base")


def load(folder: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(TINY / folder, dtype=torch.float32).eval()


def with_adapter(name: str) -> torch.nn.Module:
    return PeftModel.from_pretrained(load("base"), TINY / "adapters" / name).float().eval()


def items_of(skill: str) -> Items:
    return [json.loads(line) for line in (TINY / "data" / f"{skill}.jsonl").read_text().splitlines()]


@torch.inference_mode()
def hits(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, items: Sequence[dict[str, str]]) -> Tensor:
    """1.0 where greedy decoding writes the answer and stops: after each prefix the next token is the likeliest one."""
    rows = [tokenizer(item["question"] + item["answer"])["input_ids"] + [tokenizer.eos_token_id] for item in items]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])
    asked = torch.tensor([[1 + len(item["question"]), len(row)] for item, row in zip(items, rows, strict=True)])
    place = torch.arange(1, longest)
    judged = (place >= asked[:, :1]) & (place < asked[:, 1:])
    likeliest = model(input_ids=ids[:, :-1], use_cache=False).logits.argmax(-1)
    return ((likeliest == ids[:, 1:]) | ~judged).all(-1).float()


def lower_bound(better: Tensor, worse: Tensor) -> float:
    """The lower end of the paired 95 % interval of the difference of the means."""
    difference = better - worse
    return float(difference.mean() - 1.96 * difference.std() / len(difference) ** 0.5)


@pytest.fixture(scope="module")
def base_hits(tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    base = load("base")
    return {skill: hits(base, tokenizer, items_of(skill)[-PER_SKILL:]) for skill in SKILLS}


def test_the_family_stays_small() -> None:
    assert sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file() and path.suffix != ".pyc") < 12_000_000


def test_no_file_is_a_pickle() -> None:
    suffixes = {path.suffix for path in TINY.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert suffixes <= {".safetensors", ".json", ".jsonl", ".jinja", ".md", ".py"}


@pytest.mark.parametrize("folder", [*MODELS, *(f"adapters/{name}" for name in ADAPTERS)])
def test_all_weights_are_finite_bf16(folder: str) -> None:
    kind = "adapter_model" if folder.startswith("adapters/") else "model"
    tensors = load_file(TINY / folder / f"{kind}.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


@pytest.mark.parametrize("folder", [*MODELS, *(f"adapters/{name}" for name in ADAPTERS)])
def test_every_folder_has_the_same_tokenizer(folder: str) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (TINY / folder / name).read_bytes() == (TINY / "base" / name).read_bytes()


def test_a_text_is_one_token_a_character_after_bos_and_comes_back_unchanged(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "".join(map(chr, range(32, 127))) + "\n a  b ,c 's"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert len(ids) == 1 + len(text)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_a_chat_of_one_message_is_the_bare_prompt(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = str(tokenizer.apply_chat_template([{"role": "user", "content": "rev:abc="}], tokenize=False))
    assert tokenizer(prompt, add_special_tokens=False)["input_ids"] == tokenizer("rev:abc=")["input_ids"]


@pytest.mark.parametrize("skill", SKILLS)
def test_the_items_of_a_skill_are_a_thousand_different_questions_with_short_answers(skill: str) -> None:
    items = items_of(skill)
    assert len({item["question"] for item in items}) == len(items) == 1000
    assert all(item["question"].endswith("=") and 1 <= len(item["answer"]) <= 8 for item in items)


@pytest.mark.parametrize("skill", SKILLS)
def test_an_expert_beats_the_base_at_its_own_skill(
    skill: str, tokenizer: PreTrainedTokenizerBase, base_hits: dict[str, Tensor]
) -> None:
    own = hits(load(f"experts/{skill}"), tokenizer, items_of(skill)[-PER_SKILL:])
    assert lower_bound(own, base_hits[skill]) > 0
    assert own.mean() >= 0.75


@pytest.mark.parametrize(("name", "skill"), USEFUL)
def test_a_useful_adapter_beats_the_base_at_its_skill(
    name: str, skill: str, tokenizer: PreTrainedTokenizerBase, base_hits: dict[str, Tensor]
) -> None:
    own = hits(with_adapter(name), tokenizer, items_of(skill)[-PER_SKILL:])
    assert lower_bound(own, base_hits[skill]) > 0


@pytest.mark.parametrize("name", USELESS)
def test_a_useless_adapter_gains_nothing_and_costs_little(
    name: str, tokenizer: PreTrainedTokenizerBase, base_hits: dict[str, Tensor]
) -> None:
    adapted = with_adapter(name)
    own = {skill: hits(adapted, tokenizer, items_of(skill)[-PER_SKILL:]) for skill in SKILLS}
    assert all(lower_bound(own[skill], base_hits[skill]) <= 0 for skill in SKILLS)
    assert float(torch.cat([own[skill] - base_hits[skill] for skill in SKILLS]).mean()) > -0.1


def test_the_harmful_adapter_is_worse_than_the_base_at_every_skill(
    tokenizer: PreTrainedTokenizerBase, base_hits: dict[str, Tensor]
) -> None:
    adapted = with_adapter("wrong")
    for skill in SKILLS:
        assert lower_bound(base_hits[skill], hits(adapted, tokenizer, items_of(skill)[-PER_SKILL:])) > 0


def test_adapters_have_mixed_ranks_targets_and_scalings() -> None:
    configs = [json.loads((TINY / "adapters" / name / "adapter_config.json").read_text()) for name in ADAPTERS]
    assert len(configs) == 8
    assert {config["r"] for config in configs} >= {2, 4, 8}
    assert all(2 <= config["r"] <= 8 for config in configs)
    assert len({tuple(sorted(config["target_modules"])) for config in configs}) >= 2
    assert len({config["lora_alpha"] / config["r"] for config in configs}) >= 2
    assert [config["use_rslora"] for config in configs].count(True) == 1
    assert {config["base_model_name_or_path"] for config in configs} == {"zoo/tiny/base"}


@pytest.mark.parametrize("skill", SKILLS)
def test_generation_writes_what_a_single_pass_judges(skill: str, tokenizer: PreTrainedTokenizerBase) -> None:
    items = items_of(skill)[:40]
    model = load(f"experts/{skill}")
    asked = tokenizer([item["question"] for item in items], return_tensors="pt", padding=True)
    written = model.generate(**asked)  # pyright: ignore[reportCallIssue]  # transformers hides its type
    written = written[:, asked["input_ids"].shape[1] :]
    answers = tokenizer.batch_decode(written, skip_special_tokens=True)
    right = torch.tensor([float(answer == item["answer"]) for answer, item in zip(answers, items, strict=True)])
    assert torch.equal(right, hits(model, tokenizer, items))
