"""Small random models for tests: a character-level tokenizer and Llamas with random bf16 weights, in folders.

Random weights give sharp, varied answers when they are large enough, so that two models or two tokens are never
mistaken for one another. Nothing here learns anything; the trained family is zoo/tiny.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, BOS, EOS = 0, 1, 2
SPECIAL = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
CHARACTERS = [*SPECIAL.values(), "\n", *(chr(code) for code in range(32, 127))]
TEMPLATE = "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}{% endfor %}>"


def save_tokenizer(folder: Path, template: str | None = TEMPLATE) -> None:
    vocabulary = {token: at for at, token in enumerate(CHARACTERS)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL["unk_token"]))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **SPECIAL)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)


def save_model(folder: Path, seed: int, *, dtype: torch.dtype = torch.bfloat16, **changes: Any) -> Path:
    """Write a Llama with weights drawn from the seed; `changes` go to its configuration."""
    shape: dict[str, Any] = {
        "vocab_size": len(CHARACTERS),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
    }
    write(LlamaForCausalLM(LlamaConfig(**(shape | changes))), folder, seed, dtype)
    save_tokenizer(folder)
    return folder


def write(model: Any, folder: Path, seed: int, dtype: torch.dtype = torch.bfloat16) -> None:
    """Fill a model with numbers from the seed and save it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + (parameter.dim() == 1))
    model.to(dtype).save_pretrained(folder)


def save_adapter(folder: Path, base: Path, seed: int, *, rank: int = 3, targets: tuple[str, ...] = ("q_proj",)) -> Path:
    """Write a PEFT adapter of the base with random factors."""
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets), task_type="CAUSAL_LM")
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    assert isinstance(model, PeftModel)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.save_pretrained(str(folder))
    return folder
