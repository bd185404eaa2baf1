"""A family of very small random Llamas and LoRA adapters, written by transformers and peft themselves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge.backends.weights.store import WeightStore

WORDS = [f"word{number}" for number in range(20)]
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


def make_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({token: number for number, token in enumerate(["<unk>", "<eos>", *words])}, "<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<eos>", pad_token="<eos>")
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
        settings = {
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
        model = LlamaForCausalLM(LlamaConfig(**(settings | config)))
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
        settings = {"r": 2, "lora_alpha": 4, "target_modules": list(targets), "task_type": "CAUSAL_LM"}
        peft = get_peft_model(model, LoraConfig(**(settings | config)))
        with torch.no_grad():
            for key, parameter in peft.named_parameters():
                if "lora_" in key:
                    parameter.copy_(torch.randn_like(parameter) * 0.1)
        folder = self.root / name
        peft.to(dtype).save_pretrained(folder, save_embedding_layers=False)
        return folder


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    torch.set_num_threads(1)
    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def experts(zoo: Zoo) -> list[Path]:
    return [zoo.model("math", seed=1), zoo.model("code", seed=2, dtype=torch.bfloat16), zoo.model("chat", seed=3)]


@pytest.fixture(scope="session")
def adapters(zoo: Zoo) -> list[Path]:
    """Different ranks, scales, dtypes and targets: attention, all layers with rsLoRA, one projection."""
    return [
        zoo.adapter("short", seed=4, r=2, lora_alpha=8),
        zoo.adapter("wide", seed=5, r=5, lora_alpha=5, use_rslora=True, targets=(*ATTENTION, *MLP), dtype=torch.bfloat16),
        zoo.adapter("down", seed=6, r=3, lora_alpha=2, targets=("down_proj", "q_proj"), rank_pattern={"q_proj": 4},
                    alpha_pattern={"layers.1.self_attn.q_proj": 16}),
    ]


@pytest.fixture(scope="session")
def sharded(zoo: Zoo) -> Path:
    """A float16 model in three files or more."""
    folder = zoo.model("sharded", seed=9, dtype=torch.float16, shard="4KB")
    assert len(list(folder.glob("*.safetensors"))) >= 3
    return folder


@pytest.fixture(scope="session")
def tied(zoo: Zoo) -> list[Path]:
    """Two models whose output head is their embedding."""
    return [zoo.model(f"tied{seed}", seed=seed, tie_word_embeddings=True) for seed in (1, 2)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "evomerge"


@pytest.fixture
def store() -> WeightStore:
    return WeightStore()


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """Copy a model folder to where it may be broken."""

    def copy(folder: Path) -> Path:
        target = tmp_path / folder.name
        target.mkdir()
        for file in folder.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        return target

    return copy


@pytest.fixture(scope="session")
def edit_tensors() -> Callable[[Path, Callable[[dict[str, torch.Tensor]], None]], None]:
    """Rewrite a folder's single safetensors file after changing its tensors."""

    def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
        file = next(folder.glob("*.safetensors"))
        tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
        change(tensors)
        save_file(tensors, file, metadata={"format": "pt"})

    return edit


@pytest.fixture(scope="session")
def edit_json() -> Callable[..., None]:
    """Change keys of a JSON file; a value of None removes the key."""

    def edit(file: Path, **changes: Any) -> None:
        content = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({key: value for key, value in content.items() if key not in changes or value is not None}))

    return edit
