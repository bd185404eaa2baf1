"""What must hold of the committed adapters and items of zoo/smollm2. The base model is not needed: its dimensions are
written here. Whether the adapters are any good is measured by zoo/smollm2/measure.py, not tested."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from zoo.smollm2.items import SKILLS, data_path, first_unique, read_items

ADAPTERS = Path(__file__).parents[2] / "zoo" / "smollm2" / "adapters"
LAYERS, HIDDEN, KEY_VALUE, INNER = 30, 576, 3 * 64, 1536
SHAPES = {  # outputs, inputs
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEY_VALUE, HIDDEN),
    "self_attn.v_proj": (KEY_VALUE, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}

each_skill = pytest.mark.parametrize("skill", sorted(SKILLS))


def settings_of(skill: str) -> dict[str, Any]:
    return json.loads((ADAPTERS / skill / "adapter_config.json").read_text(encoding="utf-8"))


def test_there_is_one_adapter_for_each_of_the_five_skills_and_nothing_else():
    assert len(SKILLS) == 5
    assert sorted(path.name for path in ADAPTERS.iterdir()) == sorted(SKILLS)
    for skill in SKILLS:
        files = sorted(path.name for path in (ADAPTERS / skill).iterdir())
        assert files == ["adapter_config.json", "adapter_model.safetensors"]


@each_skill
def test_an_adapter_is_at_most_two_and_a_half_megabytes(skill: str):
    assert (ADAPTERS / skill / "adapter_model.safetensors").stat().st_size <= 2_500_000


@each_skill
def test_tensors_are_finite_bf16_and_were_trained(skill: str):
    tensors = load_file(ADAPTERS / skill / "adapter_model.safetensors")
    assert all(tensor.dtype == torch.bfloat16 for tensor in tensors.values())
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    assert all(bool(tensor.any()) for tensor in tensors.values())  # an untrained B is zero


@each_skill
def test_tensors_are_those_of_the_config_in_the_shapes_of_the_135m_model(skill: str):
    settings = settings_of(skill)
    rank, expected = settings["r"], dict[str, tuple[int, ...]]()
    for layer in range(LAYERS):
        for module, (outputs, inputs) in SHAPES.items():
            if module.split(".")[1] in settings["target_modules"]:
                prefix = f"base_model.model.model.layers.{layer}.{module}"
                expected[f"{prefix}.lora_A.weight"] = (rank, inputs)
                expected[f"{prefix}.lora_B.weight"] = (outputs, rank)
    tensors = load_file(ADAPTERS / skill / "adapter_model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == expected


@each_skill
def test_a_config_names_the_public_base_and_no_folder(skill: str):
    settings = settings_of(skill)
    assert settings["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert settings["peft_type"] == "LORA"
    assert settings["inference_mode"] is True
    assert settings["target_modules"] == sorted(settings["target_modules"])


def test_the_adapters_differ_in_rank_targets_and_scaling():
    kinds = {(s["r"], tuple(s["target_modules"]), s["use_rslora"]) for s in map(settings_of, SKILLS)}
    assert len({rank for rank, _, _ in kinds}) >= 3
    assert len({targets for _, targets, _ in kinds}) >= 2
    assert {rslora for _, _, rslora in kinds} == {False, True}


@each_skill
def test_a_skill_has_enough_items_with_unique_questions_and_short_answers(skill: str):
    items = read_items(skill)
    assert len(items) >= 600
    assert len({item.question for item in items}) == len(items)
    for item in items:
        assert item.question == item.question.strip() != ""
        assert item.answer == item.answer.strip() != ""
        assert len(item.question) <= SKILLS[skill].longest_question
        assert len(item.answer) <= SKILLS[skill].longest_answer


def test_no_question_stands_in_the_files_of_two_skills():
    questions = [item.question for skill in SKILLS for item in read_items(skill)]
    assert len(set(questions)) == len(questions)


@each_skill
def test_every_line_of_a_data_file_is_one_json_object_of_question_and_answer(skill: str):
    for line in data_path(skill).read_text(encoding="utf-8").splitlines():
        assert sorted(json.loads(line)) == ["answer", "question"]


def test_items_chosen_for_training_leave_out_what_was_seen_and_what_comes_twice():
    committed = read_items("chain_sum")
    seen = {item.question for item in committed[:3]}
    stream = iter([*committed[:5], *committed[3:8]])
    assert first_unique(stream, 4, seen) == committed[3:7]
