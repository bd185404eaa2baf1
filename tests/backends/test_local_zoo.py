"""The trained tiny family answers through the embedded backend as through transformers, one item at a time."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.backends.local import LocalBackend
from evomerge.backends.settings import LocalSettings
from evomerge.backends.weights.store import WeightStore
from evomerge.exchange import Answer, Generate, Request, Sampling
from evomerge.recipe.tree import Source
from evomerge.testing.backends import answers

TINY = Path(__file__).resolve().parents[2] / "zoo" / "tiny"
ITEMS = 25


def items(skill: str) -> list[dict[str, str]]:
    lines = (TINY / "data" / f"{skill}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:ITEMS]]


def answered(model: Path, questions: list[str]) -> list[Answer]:
    store = WeightStore()
    recipe = store.resolve(Source(str(model)), TINY)
    requests: list[Request] = [Generate(question, Sampling(12, stop=("\n",))) for question in questions]

    async def ask() -> list[Answer]:
        async with LocalBackend(LocalSettings(device="cpu"), store).hold(recipe) as held:
            return await answers(held, requests)

    return asyncio.run(ask())


@pytest.mark.parametrize("skill", ["reverse", "sort", "shift", "add"])
def test_an_expert_answers_in_a_batch_as_transformers_does_item_by_item(skill: str) -> None:
    folder = TINY / "experts" / skill
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected: list[str] = []
    for item in items(skill):
        ids = tokenizer(item["question"], return_tensors="pt", return_token_type_ids=False)
        found = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
        expected.append(tokenizer.decode(found, skip_special_tokens=True).partition("\n")[0])
    found = answered(folder, [item["question"] for item in items(skill)])
    assert [answer.text for answer in found] == expected
    assert {answer.finish for answer in found} == {"stop"}
    assert sum(text == item["answer"] for text, item in zip(expected, items(skill), strict=True)) > ITEMS / 2
