"""Whatever is not plain LoRA is refused by name; ranks and scales are read as peft reads them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from evomerge.backends.weights.adapter import Adapter
from evomerge.errors import SourceError
from tests.backends.weights.family import Copy, Zoo, edit_json, edit_tensors

Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_dora", True),
        ("modules_to_save", ["lm_head"]),
        ("fan_in_fan_out", True),
        ("bias", "all"),
        ("lora_bias", True),
        ("trainable_token_indices", [1]),
        ("target_parameters", ["x"]),
        ("layer_replication", [[0, 1]]),
        ("init_lora_weights", "pissa_niter_4"),
        ("init_lora_weights", "loftq"),
        ("peft_type", "IA3"),
    ],
)
def test_other_kinds_of_adapters_are_refused_by_name(adapters: list[Path], copied: Copy, key: str, value: Any):
    folder = copied(adapters[0])
    edit_json(folder / "adapter_config.json", **{key: value})
    with pytest.raises(SourceError, match=rf"adapter_config\.json: {key}.*support"):
        Adapter(folder)


def test_what_peft_itself_writes_for_other_kinds_is_refused(zoo: Zoo):
    kinds: dict[str, dict[str, Any]] = {"dora": {"use_dora": True}, "saved": {"modules_to_save": ["lm_head"]}}
    for name, settings in kinds.items():
        with pytest.raises(SourceError, match="not supported"):
            Adapter(zoo.adapter(name, seed=1, **settings))
    with pytest.raises(SourceError, match=r"lora_embedding_A.*not supported"):
        Adapter(zoo.adapter("embedding", seed=1, targets=("embed_tokens",)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(f"{Q0}.lora_B.weight"), "q_proj has no lora_B"),
        (lambda t: t.pop(f"{Q0}.lora_A.weight"), "q_proj has no lora_A"),
        (lambda t: t.update({f"{Q0}.lora_magnitude_vector": torch.ones(4)}), "lora_magnitude_vector is not a factor"),
        (lambda t: t.update({f"{Q0}.lora_A.weight": torch.ones(3, 16)}), "ranks differ"),
        (lambda t: t.update({f"{Q0}.lora_A.weight": torch.ones(2, 16, 1)}), r"shape \[2, 16, 1\], and a matrix"),
        (lambda t: t.update({f"{Q0}.lora_A.weight": torch.ones(2, 16, dtype=torch.int32)}), "is I32"),
        (
            lambda t: t.update({f"{Q0}.lora_A.weight": torch.ones(3, 16), f"{Q0}.lora_B.weight": torch.ones(16, 3)}),
            "has rank 3, and adapter_config.json says 2",
        ),
    ],
)
def test_tensors_that_are_no_pair_of_factors_are_refused(
    adapters: list[Path],
    copied: Copy,
    change: Callable[[dict[str, torch.Tensor]], object],
    message: str,
):
    folder = copied(adapters[0])
    edit_tensors(folder, change)
    with pytest.raises(SourceError, match=message):
        Adapter(folder)


def test_an_adapter_without_tensors_is_refused(adapters: list[Path], copied: Copy):
    folder = copied(adapters[0])
    save_file({}, folder / "adapter_model.safetensors")
    with pytest.raises(SourceError, match="holds no tensors"):
        Adapter(folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(SourceError, match=r"adapter_model\.bin: only safetensors"):
        Adapter(folder)


@pytest.mark.parametrize("alpha", [None, "four", True, float("nan")])
def test_an_alpha_that_is_no_number_is_refused(adapters: list[Path], copied: Copy, alpha: Any):
    folder = copied(adapters[0])
    edit_json(folder / "adapter_config.json", lora_alpha=alpha)
    with pytest.raises(SourceError, match=r"lora_alpha of .* a number is needed"):
        Adapter(folder)


def test_a_pattern_that_is_none_is_refused(adapters: list[Path], copied: Copy):
    folder = copied(adapters[0])
    edit_json(folder / "adapter_config.json", alpha_pattern={"(": 3})
    with pytest.raises(SourceError, match=r"alpha_pattern has the key '\('"):
        Adapter(folder)
