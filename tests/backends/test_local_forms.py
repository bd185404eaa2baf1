"""Stacks, chosen vocabularies and extracted adapters are held as they are exported: the answers are the same."""

import asyncio
from pathlib import Path

import pytest
import torch

from evomerge.backends.local import LocalBackend
from evomerge.backends.settings import LocalSettings
from evomerge.backends.weights.export import export
from evomerge.backends.weights.store import WeightStore
from evomerge.exchange import Answer, Generate, Judge, Request, Sampling
from evomerge.recipe.tree import Input, Merge, Result, Slice, Source, Stack, WeightRecipe
from evomerge.testing.backends import answers
from tests.backends.weights.family import WORDS, Zoo

BASE, OTHER, TONGUE = Source("base"), Source("other"), Source("tongue")
RECIPES: dict[str, WeightRecipe] = {
    "stack": Stack((Slice(BASE, (0, 2)), Slice(OTHER, (0, 3), 0.5))),
    "vocabulary": Merge("linear", (Input(BASE), Input(TONGUE)), result=Result(tokenizer=TONGUE)),
    "extraction": Merge("task_arithmetic", (Input(OTHER),), BASE, refactor=4),
    "half": Merge("linear", (Input(BASE), Input(OTHER)), result=Result("float16")),
}
REQUESTS: list[Request] = [
    Judge("word1 word2", (" word3", " word4")),
    Generate("word5 word6 word7", Sampling(6)),
]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    torch.set_num_threads(1)
    made = Zoo(tmp_path_factory.mktemp("zoo"))
    made.model("other", seed=1)
    made.model("tongue", seed=2, words=[*reversed(WORDS), "new"], vocab_size=23)
    return made


def asked(store: WeightStore, recipes: list[WeightRecipe]) -> list[list[Answer]]:
    async def ask() -> list[list[Answer]]:
        backend = LocalBackend(LocalSettings(device="cpu"), store)
        found: list[list[Answer]] = []
        for recipe in recipes:
            async with backend.hold(recipe) as held:
                found.append(await answers(held, REQUESTS))
        await backend.close()
        return found

    return asyncio.run(ask())


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_held_answers_as_what_is_exported(
    name: str, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = WeightStore()
    recipe = store.resolve(RECIPES[name], zoo.root)
    store.check(recipe)
    export(store, recipe, tmp_path / "out")
    if name == "extraction":
        (tmp_path / "out" / "adapter_config.json").write_text(
            (tmp_path / "out" / "adapter_config.json").read_text().replace('"base"', f'"{zoo.base}"')
        )
    exported = store.resolve(Source("out"), tmp_path)
    base = store.resolve(BASE, zoo.root)
    held, _, again = asked(store, [recipe, base, exported])
    assert held == again
    assert held[0].likelihoods[0].logprob < 0
