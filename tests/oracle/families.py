"""Small random Llamas of odd shapes, written without a model library: a base and experts that differ from it.

Only names, shapes and numbers matter here; the models answer nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]
EXPERTS = 3


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama."""

    hidden: int
    heads: int
    groups: int
    head: int
    intermediate: int
    vocabulary: int
    layers: int
    tied: bool = False

    def tensors(self) -> dict[str, tuple[int, ...]]:
        wide, narrow = self.heads * self.head, self.groups * self.head
        modules = {
            "input_layernorm": (self.hidden,),
            "self_attn.q_proj": (wide, self.hidden),
            "self_attn.k_proj": (narrow, self.hidden),
            "self_attn.v_proj": (narrow, self.hidden),
            "self_attn.o_proj": (self.hidden, wide),
            "post_attention_layernorm": (self.hidden,),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
        }
        head = {} if self.tied else {"lm_head.weight": (self.vocabulary, self.hidden)}
        return {
            "model.embed_tokens.weight": (self.vocabulary, self.hidden),
            **{
                f"model.layers.{layer}.{name}.weight": shape
                for layer in range(self.layers)
                for name, shape in modules.items()
            },
            "model.norm.weight": (self.hidden,),
            **head,
        }


def apart(base: torch.Tensor, draw: Callable[[torch.Tensor], torch.Tensor], number: int) -> torch.Tensor:
    """Experts that have nothing to do with each other."""
    return base + 0.02 * (1 + number) * draw(base)


def close(base: torch.Tensor, draw: Callable[[torch.Tensor], torch.Tensor], number: int) -> torch.Tensor:
    """Experts as fine-tuning leaves them: changes whose mean square is far below one in a million."""
    return base + 0.0003 * (1 + number) * draw(base)


def alike(base: torch.Tensor, draw: Callable[[torch.Tensor], torch.Tensor], number: int) -> torch.Tensor:
    """Experts that are all the same."""
    del number
    return base + 0.02 * (base.abs() + 0.5)


def opposed(base: torch.Tensor, draw: Callable[[torch.Tensor], torch.Tensor], number: int) -> torch.Tensor:
    """Experts that pull in opposite directions, with unequal strength."""
    return base + (0.02, -0.01, 0.0125)[number] * (base.abs() + 0.5)


@dataclass(frozen=True)
class Kind:
    """One family: its shape, how its experts differ from the base, and what they are stored in."""

    shape: Shape
    expert: Callable[[torch.Tensor, Callable[[torch.Tensor], torch.Tensor], int], torch.Tensor] = apart
    dtype: torch.dtype = torch.bfloat16


LARGE = Shape(hidden=64, heads=2, groups=2, head=32, intermediate=96, vocabulary=300, layers=1)
ODD = Shape(hidden=33, heads=3, groups=1, head=10, intermediate=17, vocabulary=29, layers=3)
KINDS: Mapping[str, Kind] = {
    "odd": Kind(ODD),
    "thin": Kind(Shape(hidden=7, heads=1, groups=1, head=2, intermediate=1, vocabulary=5, layers=2, tied=True)),
    "large": Kind(LARGE, dtype=torch.float32),
    "close": Kind(ODD, close, torch.float32),
    "alike": Kind(ODD, alike),
    "opposed": Kind(ODD, opposed),
}


@dataclass(frozen=True)
class Family:
    """Where a family is."""

    base: Path
    experts: tuple[Path, ...]
    dtype: torch.dtype


def write_families(root: Path) -> dict[str, Family]:
    return {name: _written(root / name, kind) for name, kind in KINDS.items()}


def _written(folder: Path, kind: Kind) -> Family:
    generator = torch.Generator().manual_seed(1)

    def draw(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator)

    base = {
        name: (draw(torch.empty(shape)) * 0.1 + (len(shape) == 1)).to(kind.dtype)
        for name, shape in kind.shape.tensors().items()
    }
    experts: list[Path] = []
    for number in range(EXPERTS):
        changed = {name: kind.expert(tensor.float(), draw, number).to(kind.dtype) for name, tensor in base.items()}
        experts.append(_save(folder / f"expert-{number}", kind, changed))
    return Family(_save(folder / "base", kind, base), tuple(experts), kind.dtype)


def _save(folder: Path, kind: Kind, tensors: Tensors) -> Path:
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    shape = kind.shape
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.groups,
        "head_dim": shape.head,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": str(kind.dtype).removeprefix("torch."),
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
