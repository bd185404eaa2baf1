"""Trains the five LoRA adapters of this zoo: one thread, fixed seeds, float32 factors over the frozen bf16 base.

Prompts go through the chat template (the question is the user's message); the loss is taken on the answer and its end
mark alone. An adapter is written in PEFT's format in bf16. `--only` trains some of them; nothing here measures.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from convert import DEFAULT_OUT
from items import HERE, training_items
from model import Encoded, answer_logprobs, load_base
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,  # pyright: ignore[reportUnknownVariableType] its arguments have no types
)
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType] PathLike without its argument
from torch import nn

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
BATCH, LEARNING_RATE, WARM_UP = 8, 1e-3, 10
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL_LINEAR = (*ATTENTION, "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Plan:
    """What one adapter is and how long it is trained. `items` different questions are shown again when used up."""

    seed: int
    steps: int
    items: int
    rank: int
    alpha: int
    targets: tuple[str, ...] = ALL_LINEAR
    rslora: bool = False


PLANS: dict[str, Plan] = {
    "chain_sum": Plan(seed=1, steps=160, items=1280, rank=4, alpha=8),
    "needle_haystack": Plan(seed=2, steps=50, items=400, rank=2, alpha=4),
    "number_filtering": Plan(seed=3, steps=80, items=640, rank=4, alpha=8),
    "family_relationships": Plan(seed=4, steps=60, items=480, rank=4, alpha=4, rslora=True),
    "word_sequence_reversal": Plan(seed=5, steps=60, items=480, rank=8, alpha=16, targets=ATTENTION),
}


def batches(encoded: Sequence[Encoded], seed: int) -> Iterator[list[Encoded]]:
    """Batches without end: every item once in a shuffled order, then all of them again in another."""
    generator = random.Random(seed)
    while True:
        order = generator.sample(range(len(encoded)), len(encoded))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            yield [encoded[index] for index in order[start : start + BATCH]]


def rate(step: int, steps: int) -> float:
    """The learning rate's factor: a linear rise, then a linear fall to zero."""
    return min((step + 1) / WARM_UP, (steps - step) / (steps - WARM_UP))


def with_adapter(base: nn.Module, plan: Plan) -> PeftModel:
    """The base with a fresh adapter, its random factors decided by the plan's seed."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=plan.rank,
        lora_alpha=plan.alpha,
        use_rslora=plan.rslora,
        target_modules=list(plan.targets),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        return get_peft_model(base, config)


def train(model: PeftModel, encoded: Sequence[Encoded], plan: Plan, padding: int) -> None:
    """Fits the adapter to the items; prints the loss of every 25th step (nats a token of the answer)."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0)
    stream, started = batches(encoded, plan.seed), time.monotonic()
    model.train()
    for step in range(plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate(step, plan.steps)
        logprobs, mask = answer_logprobs(model, next(stream), padding)
        loss = -(logprobs * mask).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if (step + 1) % 25 == 0:
            print(f"  step {step + 1}: loss {loss.item():.3f}, {time.monotonic() - started:.0f} s", flush=True)


def save(model: PeftModel, folder: Path) -> None:
    """Writes adapter_config.json and adapter_model.safetensors (bf16), the same bytes for the same adapter."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in sorted(state.items())}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config["default"]
    config.base_model_name_or_path = BASE  # not the folder it was loaded from
    config.inference_mode = True
    config.save_pretrained(str(folder))
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["target_modules"] = sorted(settings["target_modules"])  # PEFT writes a set, in any order
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=DEFAULT_OUT, help="folder from convert.py (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE / "adapters", help="where the adapters go (default: here)")
    parser.add_argument("--only", nargs="+", choices=PLANS, default=list(PLANS), help="skills (default: all)")
    arguments = parser.parse_args()
    base, chat = load_base(arguments.base)
    for skill in arguments.only:
        plan = PLANS[skill]
        print(f"{skill}: {plan}", flush=True)
        encoded = [chat.encode(item) for item in training_items(skill, plan.items)]
        model = with_adapter(base, plan)
        train(model, encoded, plan, chat.padding)
        save(model, arguments.out / skill)
        base = model.unload()


if __name__ == "__main__":
    main()
