"""The tiny family's tokenizer, batches and one figure, greedy exact match; shared by `train.py` and `measure.py`.

All is computed in float32 on one thread of the CPU. Batches are padded on the right, which a causal model does not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from skills import Item
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNK = range(4)
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
CHARACTERS = ("\n", *(chr(code) for code in range(32, 127)))
VOCABULARY = {token: position for position, token in enumerate((*SPECIAL, *CHARACTERS))}
IGNORED = -100
CHAT_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of one token a character (printable ASCII and the newline) that puts `<bos>` before every text."""
    core = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", BOS)]
    )
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=64,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _ids(text: str) -> list[int]:
    return [VOCABULARY[character] for character in text]


@dataclass(frozen=True)
class Batch:
    """Token ids and what has to follow each: int64 of shape (items, longest); `IGNORED` where nothing has to."""

    inputs: Tensor
    targets: Tensor


def batch_of(rows: Sequence[Item | str]) -> Batch:
    """One row for each item (its answer and `<eos>` are targets) or plain text (all of it is)."""
    inputs: list[list[int]] = []
    targets: list[list[int]] = []
    for row in rows:
        question, answer = (row.question, row.answer) if isinstance(row, Item) else ("", row)
        text = [BOS, *_ids(question + answer), EOS]
        inputs.append(text[:-1])
        targets.append([IGNORED] * len(question) + text[1 + len(question) :])
    longest = max(map(len, inputs))
    return Batch(
        torch.tensor([row + [PAD] * (longest - len(row)) for row in inputs]),
        torch.tensor([row + [IGNORED] * (longest - len(row)) for row in targets]),
    )


def logits_of(model: nn.Module, batch: Batch) -> Tensor:
    """The model's float32 logits, of shape (items, longest, vocabulary)."""
    return cast(Tensor, model(input_ids=batch.inputs, use_cache=False).logits)


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    """The mean cross-entropy of the batch's targets in nats: a scalar."""
    logits = logits_of(model, batch).flatten(0, 1)
    return nn.functional.cross_entropy(logits, batch.targets.flatten(), ignore_index=IGNORED)


@torch.inference_mode()
def exact(model: nn.Module, items: Sequence[Item], size: int = 256) -> Tensor:
    """1.0 for each item that greedy decoding answers exactly, 0.0 for each other: float32 of shape (items,).

    Greedy decoding writes the reference and stops iff the most likely token is the reference's next one after each of
    its prefixes, so a single forward pass over question and answer decides it.
    """
    hits: list[Tensor] = []
    for start in range(0, len(items), size):
        batch = batch_of(items[start : start + size])
        agreed = (logits_of(model, batch).argmax(-1) == batch.targets) | (batch.targets == IGNORED)
        hits.append(agreed.all(-1).float())
    return torch.cat(hits)
