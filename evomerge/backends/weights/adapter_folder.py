"""Low-rank factors as a folder that peft and engines with LoRA support load.

Every scale is within the factors: `lora_alpha` is the rank, for each module, so a reader that knows no patterns and one
that does find the same adapter.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evomerge.backends.weights.adapter import CONFIG, PREFIX, WEIGHTS
from evomerge.backends.weights.artifact import LowRank
from evomerge.backends.weights.headers import Stored
from evomerge.backends.weights.raw import Raw
from evomerge.backends.weights.writing import write_tensors
from evomerge.recipe.tree import Source


def write_adapter(folder: Path, factors: Mapping[str, LowRank], base: Source, modules: Iterable[str]) -> None:
    """Write adapter_config.json and adapter_model.safetensors (float32).

    `base` is written down as it stands; `modules` are all that the base has, so that the changed ones can be told
    from the others by a short list where that is possible.
    """
    tensors = {
        f"{PREFIX}{module}.lora_{factor}.weight": tensor
        for module, low in factors.items()
        for factor, tensor in (("A", low.a), ("B", low.b))
    }
    file = folder / WEIGHTS
    outline = {name: Stored(file, "F32", tuple(tensor.shape)) for name, tensor in tensors.items()}
    write_tensors(folder, {file.name: outline}, ((name, Raw.of(tensor)) for name, tensor in tensors.items()))
    config = _config({module: low.a.shape[0] for module, low in factors.items()}, base, modules)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _config(ranks: Mapping[str, int], base: Source, modules: Iterable[str]) -> dict[str, Any]:
    widest = max(ranks.values())
    others = {module: rank for module, rank in ranks.items() if rank != widest}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.model,
        "revision": base.revision,
        "r": widest,
        "lora_alpha": widest,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": _targets(ranks, modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _targets(changed: Mapping[str, int], modules: Iterable[str]) -> list[str]:
    """Return the last parts of the modules' names where these pick exactly the changed ones, else the whole names."""
    last = {module.rpartition(".")[2] for module in changed}
    picked = {module for module in modules if module.rpartition(".")[2] in last}
    return sorted(last if picked == set(changed) else changed)
