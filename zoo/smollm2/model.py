"""SmolLM2-135M-Instruct as the zoo's scripts use it: prompts through the chat template, batches behind a shared prefix,
likelihoods and greedy answers, and the exact weighted sum of several LoRA adapters. One thread of the CPU does it all.

The base is held in bf16; the low-rank part is computed in float32 and rounded once, when it is added.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from items import Item
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType] PathLike without its argument
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, Cache

LONGEST_ANSWER = 16  # new tokens; the longest reference answer has 13 with its end mark


@dataclass(frozen=True)
class Encoded:
    """One item as token ids: the prompt with the chat template around it, and the answer with its end mark."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True)
class Batch:
    """Rows behind a prefix that is computed once: the cache holds the prefix (repeated for every row), the rows are
    left-padded. Ids and positions are int64 of shape (rows, longest); the mask covers the prefix too."""

    ids: Tensor
    positions: Tensor
    mask: Tensor
    cache: Cache


class Chat:
    """The tokenizer and the chat template of a model folder, reduced to what the scripts need."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.padding: int = self._tokenizer.pad_token_id
        self.end: int = self._tokenizer.eos_token_id

    def encode(self, item: Item) -> Encoded:
        """The item's question as the user's message, its answer as the assistant's."""
        message = [{"role": "user", "content": item.question}]
        text: str = self._tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        prompt: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        answer: list[int] = self._tokenizer(item.answer, add_special_tokens=False).input_ids
        return Encoded(prompt, [*answer, self.end])

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of an answer, without special tokens and surrounding white space."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.strip()


def load_base(folder: Path) -> tuple[nn.Module, Chat]:
    """The converted model in bf16, frozen, and its tokenizer. Sets torch to one thread."""
    torch.set_num_threads(1)
    model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.requires_grad_(False)
    return model.eval(), Chat(folder)


def shared_length(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, where at least one token of each is left over."""
    columns = enumerate(zip(*prompts, strict=False))
    differing = (place for place, column in columns if len(set(column)) > 1)
    return next(differing, min(len(prompt) for prompt in prompts) - 1)


def left_pad(rows: Sequence[Sequence[int]], padding: int) -> Tensor:
    """Rows of different lengths as one int64 tensor that ends flush on the right."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[padding] * (longest - len(row)) + list(row) for row in rows])


def begin(model: nn.Module, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], padding: int) -> Batch:
    """The batch of prompts followed by answers. What all prompts begin with (the system message, a skill's fixed words)
    is computed once for all rows, and differentiably."""
    shared = shared_length(prompts)
    prefix = torch.tensor([list(prompts[0][:shared])])
    cache: Cache = model(input_ids=prefix, logits_to_keep=1, use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(prompts))
    rows = [[*prompt[shared:], *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    own = left_pad([[1] * len(row) for row in rows], 0)
    mask = torch.cat([torch.ones(len(rows), shared, dtype=torch.int64), own], dim=1)
    return Batch(left_pad(rows, padding), shared + (own.cumsum(1) - 1).clamp(min=0), mask, cache)


def forward(model: nn.Module, batch: Batch, positions: Tensor) -> Tensor:
    """Logits of the batch's rows at the places `positions` (int64, may be negative): (rows, places, vocabulary)."""
    return model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        past_key_values=batch.cache,
        logits_to_keep=positions,  # indices: a count takes a slice, and then the output matrix is copied for every row
    ).logits


def answer_logprobs(model: nn.Module, items: Sequence[Encoded], padding: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the answers' tokens, float32 (rows, longest answer), right-aligned, and the mask of the real
    ones. Differentiable."""
    batch = begin(model, [item.prompt for item in items], [item.answer for item in items], padding)
    longest = max(len(item.answer) for item in items)
    logits = forward(model, batch, torch.arange(-longest - 1, -1))
    targets = batch.ids[:, -longest:]
    logprobs = torch.log_softmax(logits.float(), -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return logprobs, left_pad([[1] * len(item.answer) for item in items], 0)


def by_length(items: Sequence[Encoded], rows: int) -> Iterator[list[int]]:
    """Indices of the items in batches of at most `rows`, items of like length together."""
    order = sorted(range(len(items)), key=lambda index: len(items[index].prompt) + len(items[index].answer))
    for start in range(0, len(order), rows):
        yield order[start : start + rows]


@torch.inference_mode()
def likelihoods(model: nn.Module, items: Sequence[Encoded], padding: int, rows: int = 25) -> list[float]:
    """Mean log-probability of a token of the reference answer, one number (nats) an item."""
    result = [math.nan] * len(items)
    for indices in by_length(items, rows):
        logprobs, mask = answer_logprobs(model, [items[index] for index in indices], padding)
        means: list[float] = ((logprobs * mask).sum(1) / mask.sum(1)).tolist()  # pyright: ignore[reportUnknownVariableType]
        for index, value in zip(indices, means, strict=True):
            result[index] = value
    return result


@torch.inference_mode()
def greedy_tokens(model: nn.Module, prompts: Sequence[Sequence[int]], padding: int, end: int) -> list[list[int]]:
    """The most likely next tokens of each prompt, one by one, up to the end mark (left out) or LONGEST_ANSWER."""
    batch = begin(model, prompts, [()] * len(prompts), padding)
    answers: list[list[int]] = [[] for _ in prompts]
    open_rows = set(range(len(prompts)))
    for _ in range(LONGEST_ANSWER):
        chosen = forward(model, batch, torch.tensor([-1])).argmax(-1)
        tokens: list[list[int]] = chosen.tolist()  # pyright: ignore[reportUnknownVariableType]
        for row, (token,) in enumerate(tokens):
            if token == end:
                open_rows.discard(row)
            elif row in open_rows:
                answers[row].append(token)
        if not open_rows:
            break
        longer = torch.cat([batch.mask, torch.ones_like(chosen)], dim=1)
        batch = Batch(chosen, batch.positions[:, -1:] + 1, longer, batch.cache)
    return answers


def greedy_answers(model: nn.Module, chat: Chat, items: Sequence[Encoded], rows: int = 25) -> list[str]:
    """The model's greedy answer to each item, without special tokens and surrounding white space."""
    result = [""] * len(items)
    for indices in by_length(items, rows):
        prompts = [items[index].prompt for index in indices]
        for index, tokens in zip(indices, greedy_tokens(model, prompts, chat.padding, chat.end), strict=True):
            result[index] = chat.decode(tokens)
    return result


class AdapterSum:
    """Adds the weighted sum of adapters of any ranks and targets to a model: W x + sum_i w_i s_i B_i A_i x.

    s_i is alpha / rank, or alpha / sqrt(rank) for rsLoRA. Weights may be negative; all zero is the base. The factors
    stand side by side (their ranks add up), so the sum is exact. The model is changed through forward hooks.
    """

    def __init__(self, model: nn.Module, folders: Sequence[Path]) -> None:
        self._downs: dict[str, list[Tensor]] = {}
        self._ups: dict[str, list[tuple[int, Tensor]]] = {}
        self._now: dict[str, Tensor] = {}
        for number, folder in enumerate(folders):
            self._read(number, folder)
        modules: dict[str, nn.Module] = dict(model.named_modules())  # pyright: ignore[reportUnknownArgumentType]
        for name, downs in self._downs.items():
            modules[name].register_forward_hook(self._hook(name, torch.cat(downs)))
        self.set([0.0] * len(folders))

    def _read(self, number: int, folder: Path) -> None:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        rank = config["r"]
        scale = config["lora_alpha"] / (math.sqrt(rank) if config["use_rslora"] else rank)
        tensors = load_file(folder / "adapter_model.safetensors")
        for key in sorted(key for key in tensors if key.endswith(".lora_A.weight")):
            name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            self._downs.setdefault(name, []).append(tensors[key].float())
            up = tensors[key.replace("lora_A", "lora_B")].float()
            self._ups.setdefault(name, []).append((number, scale * up))

    def _hook(self, name: str, down: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            low = inputs[0].float() @ down.T
            return output + (low @ self._now[name].T).to(output.dtype)

        return add

    def set(self, weights: Sequence[float]) -> None:
        """From here on the model answers with these weights, one an adapter, in the order of the folders."""
        for name, ups in self._ups.items():
            self._now[name] = torch.cat([weights[number] * up for number, up in ups], dim=1)
