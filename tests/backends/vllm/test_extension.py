"""The worker extension in a real server: whatever it is asked, the engine lives, and answers as the weights it holds.

One server is asked everything in one go; the tests look at what it said.
"""

import asyncio
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.backends.vllm.link import Link
from evomerge.backends.vllm.server import Server
from evomerge.backends.vllm.settings import VllmSettings
from evomerge.backends.vllm.wire import to_wire
from evomerge.backends.weights.store import WeightStore
from evomerge.recipe.tree import Input, Merge, Source, WeightRecipe, recipe_id
from evomerge.study.own_methods import import_methods
from tests.support.models import save_model

pytestmark = pytest.mark.slow

PROMPTS = ["1+2=", "some other words", "a long prompt that fills blocks of the prefix cache; " * 5]
SHAPE: dict[str, Any] = {"hidden_size": 128, "max_position_embeddings": 512, "tie_word_embeddings": True}
OWN = """
from evomerge import Needs, method

class Stop(BaseException):
    pass

@method("stops", title="Stops", needs=Needs("unused", (1, None)), parameters=(), source="a test", evidence="R")
def stops(ctx, base, inputs, params):
    if ctx.name == "model.layers.1.self_attn.q_proj.weight":  # its neighbour in the fused projection was loaded
        raise Stop("in the middle")
    return inputs[0] * 0.5
"""
TENSOR = "model.layers.1.mlp.up_proj.weight"


@dataclass
class Said:
    """What the server answered to a question, and how it was after that; a torn model is asked for no texts."""

    answer: Mapping[str, Any]
    state: Mapping[str, Any]
    texts: list[Any]


@dataclass
class Conversation:
    """All that the server said."""

    at_first: list[Any] = field(default_factory=list[Any])
    state: Mapping[str, Any] = field(default_factory=dict[str, Any])
    wrong: dict[str, Said] = field(default_factory=dict[str, Said])
    swapped: list[Any] = field(default_factory=list[Any])
    torn: dict[str, Said] = field(default_factory=dict[str, Said])
    repaired: dict[str, Said] = field(default_factory=dict[str, Said])
    starts: int = 0


def argument(recipe: WeightRecipe) -> dict[str, Any]:
    return {"recipe": to_wire(recipe), "id": recipe_id(recipe)}


class Wrong:
    """Arguments of `evomerge_hold` that must be refused before a tensor is touched."""

    def __init__(self, folder: Path, base: Path) -> None:
        self._folder, self._base, self._store = folder, base, WeightStore()
        self.arguments = {
            "a path": self._then("gone", shutil.rmtree),
            "a fingerprint": self._then("other", lambda place: self._rewrite(place, TENSOR, 2 * torch.ones(64, 128))),
            "a shape": self._changed("shape", torch.ones(65, 128)),
            "a dtype": self._changed("dtype", torch.ones(64, 128, dtype=torch.int64)),
            "a name": self._changed("name", torch.ones(64, 128), "model.layers.1.mlp.other.weight"),
            "an architecture": self._held(save_model(folder / "deeper", 4, **SHAPE, num_hidden_layers=3)),
            "a vocabulary": self._held(save_model(folder / "wider", 4, **SHAPE, vocab_size=150)),
            "an id": {**self._held(base), "id": "0123456789abcdef"},
            "a recipe": {"recipe": {"method": 3}, "id": "0123456789abcdef"},
            "nothing": {},
        }

    def _held(self, model: Path) -> dict[str, Any]:
        return argument(self._store.resolve(Source(str(model)), self._folder))

    def _then(self, name: str, change: Any) -> dict[str, Any]:
        shutil.copytree(self._base, self._folder / name)
        made = self._held(self._folder / name)
        change(self._folder / name)
        return made

    def _changed(self, name: str, tensor: torch.Tensor, called: str = TENSOR) -> dict[str, Any]:
        shutil.copytree(self._base, self._folder / name)
        self._rewrite(self._folder / name, called, tensor)
        return self._held(self._folder / name)

    def _rewrite(self, place: Path, called: str, tensor: torch.Tensor) -> None:
        tensors = load_file(place / "model.safetensors")
        del tensors[TENSOR]
        save_file({**tensors, called: tensor}, place / "model.safetensors")


async def asked(link: Link) -> list[Any]:
    await link.forget_prefixes()
    body = {"model": "base", "prompt": PROMPTS, "max_tokens": 8, "temperature": 0, "logprobs": 1}
    return [[choice["text"], choice["logprobs"]["token_logprobs"]] for choice in (await link.complete(body))["choices"]]


async def called(link: Link, method: str, told: Mapping[str, Any]) -> Said:
    (answer,) = await link.call(method, told)
    (state,) = await link.call("evomerge_state", {})
    return Said(answer, state, [] if state["torn"] else await asked(link))


async def conversation(python: Path, folder: Path) -> Conversation:
    base, one, two = (save_model(folder / str(seed), seed, **SHAPE) for seed in range(3))
    (folder / "vllm_stopping.py").write_text(OWN)
    store = WeightStore()

    def merge(method: str, **params: float) -> WeightRecipe:
        recipe = Merge(
            method,
            tuple(Input(Source(str(model)), dict(params)) for model in (one, two)),
            base=Source(str(base)) if params else None,
        )
        import_methods(recipe, folder)
        return store.resolve(recipe, folder)

    good = argument(merge("task_arithmetic", weight=0.5))
    server = Server(
        VllmSettings(kind="vllm", dtype="float32", args={"enforce-eager": True}),
        python,
        base,
        name="vLLM",
        log=folder / "vllm.log",
        number=0,
        adapters=None,
        tell=lambda _: None,
    )
    found = Conversation()
    try:
        link = await server.ready()
        (found.state,) = await link.call("evomerge_state", {})
        found.at_first = await asked(link)
        for name, told in Wrong(folder, base).arguments.items():
            found.wrong[name] = await called(link, "evomerge_hold", told)
        found.wrong["a place"] = await called(link, "evomerge_open", {"recipe": good["recipe"], "experts": "gpu"})
        first = await called(link, "evomerge_hold", good)
        assert first.answer["ok"] is True, first.answer
        found.swapped = first.texts
        for name, recipe in (
            ("an exception of one's own", merge("vllm_stopping:stops")),
            ("an overflow", merge("task_arithmetic", weight=2e38)),
        ):
            found.torn[name] = await called(link, "evomerge_hold", argument(recipe))
            found.repaired[name] = await called(link, "evomerge_hold", good)
        found.starts = (await server.ready()) is link and server.starts
    finally:
        await server.stop()
    return found


@pytest.fixture(scope="module")
def said(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Conversation:
    return asyncio.run(conversation(vllm_python, tmp_path_factory.mktemp("extension")))


def test_the_engine_says_what_it_is(said: Conversation) -> None:
    assert said.state["holds"] is None
    assert (said.state["torn"], said.state["device"], said.state["place"]) == (False, "cpu", "files")
    assert set(said.state["versions"]) == {"evomerge", "vllm", "torch"}
    assert json.dumps(said.state)


@pytest.mark.parametrize(
    ("wrong", "kind", "sentence"),
    [
        ("a path", "config", "gone does not exist"),
        ("a fingerprint", "config", "other is not what it was when the study read it"),
        ("a shape", "config", f"the tensor {TENSOR} is [65, 128] in the recipe's result and [64, 128] in"),
        ("a dtype", "config", f"the tensor {TENSOR} is I64 in the recipe's result and BF16 in"),
        ("a name", "config", f"the recipe's result lacks the tensor {TENSOR}"),
        ("an architecture", "config", "num_hidden_layers 2, and the recipe's result has 3"),
        ("a vocabulary", "config", "vocab_size"),
        ("an id", "config", "the recipe 0123456789abcdef arrived as"),
        ("a recipe", "config", "what was sent is no recipe"),
        ("nothing", "backend", "the worker failed (KeyError: 'recipe')"),
        ("a place", "config", "experts: gpu needs an engine on a GPU"),
    ],
)
def test_what_is_wrong_is_refused_in_a_sentence_and_touches_nothing(
    said: Conversation, wrong: str, kind: str, sentence: str
) -> None:
    after = said.wrong[wrong]
    assert after.answer["kind"] == kind
    assert sentence in after.answer["error"]
    assert (after.state["holds"], after.state["torn"]) == (None, False)
    assert after.texts == said.at_first


def test_a_swap_changes_the_answers(said: Conversation) -> None:
    assert said.swapped != said.at_first


@pytest.mark.parametrize(
    ("torn", "kind", "sentence"),
    [
        ("an exception of one's own", "backend", "the worker failed (Stop: in the middle)"),
        ("an overflow", "candidate", "overflows bfloat16"),
    ],
)
def test_a_swap_that_failed_half_way_is_known_and_repaired_by_the_next(
    said: Conversation, torn: str, kind: str, sentence: str
) -> None:
    failed, after = said.torn[torn], said.repaired[torn]
    assert failed.answer["kind"] == kind
    assert sentence in failed.answer["error"]
    assert (failed.state["holds"], failed.state["torn"]) == (None, True)
    assert after.answer["ok"] is True
    assert after.state["torn"] is False
    assert after.texts == said.swapped


def test_the_engine_lived_through_it_all(said: Conversation) -> None:
    assert said.starts == 1
