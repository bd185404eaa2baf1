"""What candidates are made of: fine-tunes and adapters of SmolLM2-135M that are as large as real ones and mean nothing.

A fine-tune is the model with a little noise on every weight, in bf16, so that the candidates between them still write
text. All come from fixed seeds into one folder, and what stands there already is used again.
"""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.backends.weights.store import WeightStore
from evomerge.recipe.tree import Source

CACHE = Path(__file__).parents[2] / ".cache"
MODEL = CACHE / "smollm2-135m-instruct"
EXPERTS = 3
ADAPTERS = 8
RANK = 8
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")

_NOISE = 0.01  # of a tensor's own standard deviation
_ADAPTER = 0.002  # standard deviation of what an adapter adds to a weight


@dataclass(frozen=True)
class Models:
    """Where the models are; `folder` has room for more."""

    folder: Path
    base: Path
    experts: tuple[Path, ...]
    adapters: tuple[Path, ...]


def models(base: Path = MODEL, folder: Path = CACHE / "vllm") -> Models:
    """Return the models, made if they are not there."""
    made = Models(
        folder,
        base,
        tuple(folder / f"expert-{number}" for number in range(1, EXPERTS + 1)),
        tuple(folder / f"adapter-{number}" for number in range(1, ADAPTERS + 1)),
    )
    for seed, expert in enumerate(made.experts):
        if not expert.is_dir():
            _write(expert, base, seed)
    for seed, adapter in enumerate(made.adapters):
        if not adapter.is_dir():
            _write_adapter(adapter, base, seed)
    return made


def _write(folder: Path, base: Path, seed: int) -> None:
    import torch
    from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]  # in its own

    generator = torch.Generator().manual_seed(seed)
    tensors = load_file(base / "model.safetensors")
    for name, tensor in tensors.items():
        drawn = torch.randn(tensor.shape, generator=generator)
        tensors[name] = (tensor.float() + _NOISE * tensor.float().std() * drawn).to(tensor.dtype)
    unfinished = _unfinished(folder)
    for file in base.iterdir():
        if file.suffix != ".safetensors":
            shutil.copyfile(file, unfinished / file.name)
    save_file(tensors, unfinished / "model.safetensors", metadata={"format": "pt"})
    unfinished.rename(folder)


def _write_adapter(folder: Path, base: Path, seed: int) -> None:
    import torch
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]  # a type within its own

    generator = torch.Generator().manual_seed(seed)
    factors: dict[str, Any] = {}
    for name, stored in WeightStore().outline(Source(str(base))).items():
        if not name.endswith(tuple(f"{module}.weight" for module in MODULES)):
            continue
        rows, columns = stored.shape
        module = f"base_model.model.{name.removesuffix('.weight')}"
        factors[f"{module}.lora_A.weight"] = torch.randn(RANK, columns, generator=generator)
        factors[f"{module}.lora_B.weight"] = torch.randn(rows, RANK, generator=generator) * _ADAPTER / math.sqrt(RANK)
    unfinished = _unfinished(folder)
    save_file(factors, unfinished / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": list(MODULES),
    }
    (unfinished / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    unfinished.rename(folder)


def _unfinished(folder: Path) -> Path:
    """Return an empty folder beside one that is to be whole or not there."""
    beside = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    return beside
