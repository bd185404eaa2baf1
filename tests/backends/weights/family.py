"""A family of very small random Llamas and LoRA adapters, written by transformers and peft themselves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

Copy = Callable[[Path], Path]


UNKNOWN, END = "<unk>", "<eos>"
WORDS = [f"word{number}" for number in range(20)]
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


def make_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({token: number for number, token in enumerate([UNKNOWN, END, *words])}, UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token=UNKNOWN, eos_token=END, pad_token=END)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return tokenizer


class Zoo:
    """Writes models and adapters into a folder; `base` is the float32 base of all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = self.model("base", seed=0)

    def model(
        self,
        name: str,
        *,
        seed: int,
        dtype: torch.dtype = torch.float32,
        shard: str = "5GB",
        words: list[str] | None = None,
        spread: float = 0.02,
        **config: Any,
    ) -> Path:
        """A model that differs from the base by noise of standard deviation `spread`."""
        torch.manual_seed(0)
        settings: dict[str, Any] = {
            "vocab_size": 22,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 32,
            "initializer_range": 0.3,
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 1,
        }
        model: Any = LlamaForCausalLM(LlamaConfig(**(settings | config)))
        if seed:
            torch.manual_seed(seed)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * spread)
        folder = self.root / name
        model.to(dtype).save_pretrained(folder, max_shard_size=shard)
        make_tokenizer(words or WORDS).save_pretrained(folder)
        return folder

    def adapter(
        self, name: str, *, seed: int, base: Path | None = None, targets: tuple[str, ...] = ATTENTION, **config: Any
    ) -> Path:
        """A LoRA adapter whose factors are all random (fresh ones have B = 0)."""
        dtype = config.pop("dtype", torch.float32)
        model = LlamaForCausalLM.from_pretrained(base or self.base)
        torch.manual_seed(seed)
        settings: dict[str, Any] = {"r": 2, "lora_alpha": 4, "target_modules": list(targets), "task_type": "CAUSAL_LM"}
        peft = get_peft_model(model, LoraConfig(**(settings | config)))
        with torch.no_grad():
            for key, parameter in peft.named_parameters():
                if "lora_" in key:
                    parameter.copy_(torch.randn_like(parameter) * 0.1)
        folder = self.root / name
        peft.to(dtype).save_pretrained(str(folder), save_embedding_layers=False)
        return folder


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Rewrite a folder's single safetensors file after changing its tensors."""
    file = next(folder.glob("*.safetensors"))
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def edit_json(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file; a value of None removes the key."""
    content = json.loads(file.read_text()) | changes
    kept = {key: value for key, value in content.items() if key not in changes or value is not None}
    file.write_text(json.dumps(kept))
