"""A family of synthetic Llamas to merge: a base and experts that differ from it a little, in bf16, from fixed seeds.

Names, shapes and files are those of real models; the numbers mean nothing. A family that stands in its folder already
is used again. Adapters for its base can be made as well.

    python -m benchmarks.merge.family --size 374m
"""

import argparse
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CACHE = Path(__file__).parents[2] / ".cache" / "merge"
EXPERTS = 3
RANK = 16

_WEIGHT = 0.02  # standard deviation of a weight of the base
_CHANGE = 0.001  # standard deviation of an expert's change, before each row's own factor
_MODEL = 1 << 16  # between the seeds of two models (torch uses 32 bits of a seed)
_PIECE = 1 << 22  # numbers drawn at a time


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama whose output head is not tied."""

    hidden: int
    layers: int
    intermediate: int
    vocabulary: int
    heads: int
    groups: int

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes, in the order of the file."""
        hidden, narrow = self.hidden, self.hidden // self.heads * self.groups
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, hidden)}
        for layer in range(self.layers):
            found |= {
                f"model.layers.{layer}.{name}.weight": shape
                for name, shape in {
                    "input_layernorm": (hidden,),
                    "self_attn.q_proj": (hidden, hidden),
                    "self_attn.k_proj": (narrow, hidden),
                    "self_attn.v_proj": (narrow, hidden),
                    "self_attn.o_proj": (hidden, hidden),
                    "post_attention_layernorm": (hidden,),
                    "mlp.gate_proj": (self.intermediate, hidden),
                    "mlp.up_proj": (self.intermediate, hidden),
                    "mlp.down_proj": (hidden, self.intermediate),
                }.items()
            }
        return found | {"model.norm.weight": (hidden,), "lm_head.weight": (self.vocabulary, hidden)}

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for shape in self.tensors.values())

    @property
    def largest(self) -> int:
        """Number of elements of the largest tensor."""
        return max(math.prod(shape) for shape in self.tensors.values())

    @property
    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.groups,
            "hidden_act": "silu",
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "torch_dtype": "bfloat16",
        }


SIZES = {
    "tiny": Shape(hidden=48, layers=2, intermediate=88, vocabulary=96, heads=4, groups=2),
    "374m": Shape(hidden=1024, layers=24, intermediate=2816, vocabulary=32000, heads=16, groups=16),
}


@dataclass(frozen=True)
class Family:
    """Where the models are."""

    shape: Shape
    base: Path
    experts: tuple[Path, ...]


def family(size: str, root: Path = CACHE) -> Family:
    """Return the family of a size, made if it is not there."""
    shape = SIZES[size]
    folder = root / size
    said = json.dumps({"shape": asdict(shape), "weight": _WEIGHT, "change": _CHANGE})
    made = Family(shape, folder / "base", tuple(folder / f"expert-{number}" for number in range(1, EXPERTS + 1)))
    note = folder / "family.json"
    if not note.is_file() or note.read_text(encoding="utf-8") != said:
        shutil.rmtree(folder, ignore_errors=True)
        for seed, model in enumerate((made.base, *made.experts)):
            _write(model, shape, seed)
        note.write_text(said, encoding="utf-8")
    return made


def adapters(made: Family) -> tuple[Path, ...]:
    """Return one LoRA adapter of the base for each expert, of all its linear layers, made if they are not there."""
    folders = tuple(made.base.with_name(f"adapter-{number}") for number in range(1, EXPERTS + 1))
    for seed, folder in enumerate(folders, start=1):
        if not (folder / "adapter_config.json").is_file():
            _write_adapter(folder, made, seed)
    return folders


def _write(folder: Path, shape: Shape, seed: int) -> None:
    """Write one model; seed 0 is the base."""
    import torch
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]  # a type within its own

    folder.mkdir(parents=True)
    tensors = {
        name: _tensor(torch.Generator(), number, size, seed).to(torch.bfloat16)
        for number, (name, size) in enumerate(shape.tensors.items())
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(shape.config, indent=2), encoding="utf-8")
    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{number}": number for number in range(3, shape.vocabulary)}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _tensor(generator: Any, number: int, size: tuple[int, ...], seed: int) -> Any:
    """Return a tensor of the base in float32, or of an expert: the base's plus a change that differs between rows."""
    import torch

    found = torch.cat([*_drawn(generator, number, math.prod(size))]).mul_(_WEIGHT)
    found = found.to(torch.bfloat16).float().view(size).add_(1.0 if len(size) == 1 else 0.0)
    if seed == 0:
        return found
    change = torch.cat([*_drawn(generator, _MODEL * seed + number, math.prod(size))]).view(size)
    generator.manual_seed(_MODEL * seed + _MODEL // 2 + number)
    rows = torch.exp(torch.randn(size[0], *(1 for _ in size[1:]), generator=generator) / 2)
    return found.addcmul_(change, rows, value=_CHANGE)


def _drawn(generator: Any, seed: int, count: int) -> Iterator[Any]:
    import torch

    generator.manual_seed(seed)
    for start in range(0, count, _PIECE):
        yield torch.randn(min(_PIECE, count - start), generator=generator)


def _write_adapter(folder: Path, made: Family, seed: int) -> None:
    import torch
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]  # a type within its own

    generator = torch.Generator().manual_seed(seed)
    linear = {name: size for name, size in made.shape.tensors.items() if "_proj." in name}
    factors: dict[str, Any] = {}
    for name, (rows, columns) in linear.items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        factors[f"{module}.lora_A.weight"] = torch.randn(RANK, columns, generator=generator) / math.sqrt(columns)
        factors[f"{module}.lora_B.weight"] = torch.randn(rows, RANK, generator=generator) * _WEIGHT
    folder.mkdir(parents=True, exist_ok=True)
    save_file(factors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(made.base),
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": sorted({name.split(".")[-2] for name in linear}),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def main() -> None:
    """Make a family and say where it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="374m", help="which family (default: 374m)")
    made = family(parser.parse_args().size)
    print(f"{1 + len(made.experts)} models of {made.shape.parameters:,} parameters in {made.base.parent}")


if __name__ == "__main__":
    main()
