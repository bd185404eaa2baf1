"""Every candidate is written into one model, and answers as a model that was loaded afresh from its own folder does."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from evomerge.backends.local import LocalBackend
from evomerge.backends.local.resident import Architecture, Resident
from evomerge.backends.settings import LocalSettings
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import CandidateError
from evomerge.exchange import Answer, Generate, Judge, Request, Sampling
from evomerge.recipe.tree import Input, Merge, Source, WeightRecipe
from evomerge.testing.backends import answers
from tests.support.models import CHARACTERS, save_adapter, save_model, save_tokenizer, write

QUESTIONS: list[Request] = [Generate("sort:dbca=", Sampling(10)), Judge("rev:abc=", ("cba", "abc"))]
TARGETS = ("q_proj", "v_proj", "down_proj")


@pytest.fixture
def store() -> WeightStore:
    return WeightStore()


def source(store: WeightStore, folder: Path) -> WeightRecipe:
    return store.resolve(Source(str(folder)), folder)


def held(store: WeightStore, recipes: Sequence[WeightRecipe], **settings: object) -> list[list[Answer]]:
    """Ask one recipe after another, all in one model."""
    backend = LocalBackend(LocalSettings.model_validate({"device": "cpu"} | settings), store)

    async def ask() -> list[list[Answer]]:
        found: list[list[Answer]] = []
        for recipe in recipes:
            async with backend.hold(recipe) as model:
                found.append(await answers(model, QUESTIONS))
        await backend.close()
        return found

    return asyncio.run(ask())


def fresh(store: WeightStore, recipe: WeightRecipe, **settings: object) -> list[Answer]:
    return held(store, [recipe], **settings)[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_swap_gives_what_a_fresh_model_gives(store: WeightStore, tmp_path: Path, tied: bool, dtype: str) -> None:
    one, two = (source(store, save_model(tmp_path / f"{seed}", seed, tie_word_embeddings=tied)) for seed in (1, 2))
    merged = Merge("linear", (Input(one, {"weight": 0.3}), Input(two, {"weight": 0.7})))
    recipes = [one, two, merged, one, merged]
    found = held(store, recipes, dtype=dtype)
    assert found == [fresh(store, recipe, dtype=dtype) for recipe in recipes]
    assert len({str(answer) for answer in found}) == 3


def test_a_merge_answers_as_the_model_that_is_exported_and_loaded(store: WeightStore, tmp_path: Path) -> None:
    one, two = (source(store, save_model(tmp_path / f"{seed}", seed)) for seed in (1, 2))
    merged = Merge("linear", (Input(one, {"weight": 0.3}), Input(two, {"weight": 0.7})))
    found = held(store, [one, merged])[1]
    save_file(dict(store.tensors(merged)), tmp_path / "1" / "model.safetensors", metadata={"format": "pt"})
    assert found == fresh(WeightStore(), source(WeightStore(), tmp_path / "1"))


def test_an_answering_candidate_never_writes_into_the_files_it_came_from(store: WeightStore, tmp_path: Path) -> None:
    one, two = (source(store, save_model(tmp_path / f"{seed}", seed, dtype=torch.float32)) for seed in (1, 2))
    before = load_file(tmp_path / "1" / "model.safetensors")
    held(store, [one, two])
    for name, tensor in store.tensors(one):
        assert torch.equal(tensor, before[name])


class Breaking(WeightStore):
    """A store in which one candidate's tensors end half-way."""

    broken: WeightRecipe | None = None

    def tensors(self, recipe: WeightRecipe) -> Iterator[tuple[str, torch.Tensor]]:
        for number, pair in enumerate(super().tensors(recipe)):
            if recipe is self.broken and number == 7:
                raise CandidateError("the merged tensor overflows")
            yield pair


def test_a_candidate_that_fails_half_way_leaves_nothing_of_itself(tmp_path: Path) -> None:
    store = Breaking()
    one, two = (source(store, save_model(tmp_path / f"{seed}", seed)) for seed in (1, 2))
    expected = fresh(store, one)
    store.broken = two
    backend = LocalBackend(LocalSettings(device="cpu"), store)

    async def ask(recipe: WeightRecipe) -> list[Answer]:
        async with backend.hold(recipe) as model:
            return await answers(model, QUESTIONS)

    assert asyncio.run(ask(one)) == expected
    with pytest.raises(CandidateError, match="overflows"):
        asyncio.run(ask(two))
    assert asyncio.run(ask(one)) == expected


def test_models_of_two_shapes_are_held_one_after_the_other(store: WeightStore, tmp_path: Path) -> None:
    small = source(store, save_model(tmp_path / "small", 1))
    wide = source(store, save_model(tmp_path / "wide", 2, intermediate_size=96))
    assert held(store, [small, wide, small]) == [fresh(store, recipe) for recipe in (small, wide, small)]


def test_a_family_whose_checkpoint_has_other_names_is_loaded_by_transformers_each_time(
    store: WeightStore, tmp_path: Path
) -> None:
    recipes: list[WeightRecipe] = []
    for seed in (1, 2):
        folder = tmp_path / f"gpt{seed}"
        config = GPT2Config(vocab_size=len(CHARACTERS), n_positions=32, n_embd=16, n_layer=2, n_head=2, eos_token_id=2)
        write(GPT2LMHeadModel(config), folder, seed)
        save_tokenizer(folder)
        stored = load_file(folder / "model.safetensors")
        bare = {name.removeprefix("transformer."): tensor for name, tensor in stored.items()}
        assert bare.keys() != stored.keys()
        save_file(bare, folder / "model.safetensors", metadata={"format": "pt"})
        recipes.append(source(store, folder))
    found = held(store, [*recipes, recipes[0]])
    assert found == [fresh(store, recipe) for recipe in (*recipes, recipes[0])]
    assert found[0] != found[1]
    for recipe, folder in zip(recipes, ("gpt1", "gpt2"), strict=True):
        assert found[recipes.index(recipe)][1].likelihoods[0].logprob == pytest.approx(
            by_hand(AutoModelForCausalLM.from_pretrained(tmp_path / folder, dtype=torch.float32), tmp_path / folder),
            abs=1e-5,
        )


def by_hand(model: Any, folder: Path) -> float:
    """The log-probability of "cba" after "rev:abc="."""
    ids = AutoTokenizer.from_pretrained(folder).encode("rev:abc=cba")
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits
    losses = torch.nn.functional.cross_entropy(logits[0, 8:-1], torch.tensor(ids[9:]), reduction="none")
    return -losses.double().sum().item()


def test_a_tensor_that_is_missing_or_of_another_shape_is_the_candidates_fault(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "a", 1)
    stored = load_file(folder / "model.safetensors")
    resident = Resident(Architecture(folder), torch.float32, torch.device("cpu"))
    resident.put("whole", lambda: iter(stored.items()))
    lacking = {name: tensor for name, tensor in stored.items() if name != "model.norm.weight"}
    with pytest.raises(CandidateError, match=r"lacks the tensor model\.norm\.weight"):
        resident.put("lacking", lambda: iter(lacking.items()))
    misshapen = stored | {"model.norm.weight": torch.ones(5)}
    with pytest.raises(CandidateError, match="cannot load"):
        resident.put("misshapen", lambda: iter(misshapen.items()))
    model = resident.put("whole", lambda: iter(stored.items())).model
    assert torch.equal(model.model.norm.weight, stored["model.norm.weight"].float())


def test_the_first_load_prints_nothing(store: WeightStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = source(store, save_model(tmp_path / "a", 1))
    capfd.readouterr()
    fresh(store, recipe)
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def adapted(store: WeightStore, tmp_path: Path) -> Merge:
    """Two adapters of other ranks and targets on one base, combined linearly: an adapter."""
    base = save_model(tmp_path / "base", 1)
    inputs = [
        Input(Source(str(save_adapter(tmp_path / "x", base, 5, rank=3, targets=TARGETS))), {"weight": 0.8}),
        Input(Source(str(save_adapter(tmp_path / "y", base, 6, rank=2, targets=("v_proj",)))), {"weight": -0.5}),
    ]
    recipe = store.resolve(Merge("task_arithmetic", tuple(inputs), base=Source(str(base))), tmp_path)
    assert isinstance(recipe, Merge)
    return recipe


def test_an_adapter_answers_and_leaves_the_base_as_it_was(store: WeightStore, adapted: Merge) -> None:
    assert adapted.base is not None
    one_alone = Merge("task_arithmetic", adapted.inputs[:1], base=adapted.base)
    recipes = [adapted.base, adapted, one_alone, adapted.base, adapted]
    found = held(store, recipes)
    assert found == [fresh(store, recipe) for recipe in recipes]
    assert len({str(answer) for answer in found}) == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_is_computed_to_the_bit_as_peft_does_unmerged(
    store: WeightStore, adapted: Merge, tmp_path: Path, dtype: str
) -> None:
    factors = store.low_rank(adapted)
    ranks = {module: change.a.shape[0] for module, change in factors.items()}
    assert set(ranks.values()) == {3, 5}
    folder = save_adapter(tmp_path / "exported", tmp_path / "base", 1, targets=TARGETS)
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= {"r": 1, "lora_alpha": 1, "rank_pattern": ranks, "alpha_pattern": ranks}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    stored = {
        f"base_model.model.{module}.lora_{letter}.weight": factor.contiguous()
        for module, change in factors.items()
        for letter, factor in (("A", change.a), ("B", change.b))
    }
    save_file(stored, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=getattr(torch, dtype))
    peft = PeftModel.from_pretrained(base, str(folder)).eval()
    ids = torch.tensor([[1, *range(10, 40)]])
    with torch.no_grad():
        expected = peft(ids).logits

    backend = LocalBackend(LocalSettings.model_validate({"device": "cpu", "dtype": dtype}), store)

    async def logits() -> torch.Tensor:
        async with backend.hold(adapted):
            held_now = backend._engine()._held
            assert held_now is not None
            with torch.inference_mode():
                return held_now.causal.logits({"input_ids": ids})

    found = asyncio.run(logits())
    assert torch.equal(found, expected)
