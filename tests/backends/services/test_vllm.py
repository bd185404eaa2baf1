"""vLLM as a service: adapters by their names, sums loaded while they are asked, and nothing left behind."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from evomerge.backends.protocol import Placement, Unsupported
from evomerge.backends.services.exact import kept
from evomerge.backends.services.leftovers import FILE, Leftover, Leftovers
from evomerge.errors import BackendError, CandidateError
from evomerge.exchange import Generate, Request, Sampling
from evomerge.recipe.served import ServedAdapter, ServedInput, ServedMerge
from tests.backends.services.support import PROMPTS, adapters, asked, backend, merge
from tests.support.services import VllmServer, running

REQUESTS: list[Request] = [Generate(prompt, Sampling(6)) for prompt in PROMPTS]
SUM = merge({"one": 0.5, "wide": -1.0})


def start(family: Path, **settings: Any) -> VllmServer:
    return VllmServer(family / "base", adapters(family), **settings)


def is_clean(server: VllmServer, place: Path) -> bool:
    shared = place / "shared"
    empty = not shared.exists() or not any(shared.iterdir())
    return set(server.served) == {"one", "two", "wide"} and empty and not (place / FILE).exists()


def test_a_sum_is_loaded_once_and_taken_back(family: Path, tmp_path: Path) -> None:
    with running(start(family)) as server:
        asked(backend(server, "vllm", tmp_path, folder="shared"), SUM, REQUESTS)
        assert len(server.loaded) == 1
        assert {body["model"] for body in server.asked} == set(server.loaded)
        assert is_clean(server, tmp_path)


@pytest.mark.parametrize(("recipe", "model"), [(merge({"two": 1.0}), "two"), (merge({}), "base")])
def test_an_adapter_alone_needs_no_load(recipe: ServedMerge, model: str, family: Path, tmp_path: Path) -> None:
    with running(start(family)) as server:
        service = backend(server, "vllm", tmp_path)
        assert isinstance(service.plan(recipe), Placement)
        asked(service, recipe, REQUESTS)
        assert server.loaded == []
        assert {body["model"] for body in server.asked} == {model}


def test_what_an_earlier_process_left_is_taken_back_first(family: Path, tmp_path: Path) -> None:
    with running(start(family)) as server:
        left = tmp_path / "shared" / "evomerge-left"
        left.mkdir(parents=True)
        server.served["evomerge-left"] = server.served["one"]
        Leftovers(tmp_path).add(Leftover(server.url, "evomerge-left", str(left)))
        asked(backend(server, "vllm", tmp_path, folder="shared"), merge({"one": 1.0}), REQUESTS[:1])
        assert is_clean(server, tmp_path)
        assert server.seen.index("POST /v1/unload_lora_adapter") < server.seen.index("POST /v1/completions")


def test_what_was_left_elsewhere_stays_noted_and_is_told_no_key(family: Path, tmp_path: Path) -> None:
    with running(start(family)) as other, running(start(family, key="canary")) as server:
        Leftovers(tmp_path).add(Leftover(other.url, "evomerge-left", str(tmp_path / "shared" / "evomerge-left")))
        asked(backend(server, "vllm", tmp_path, api_key_env="KEY"), merge({"one": 1.0}), REQUESTS[:1])
        assert other.seen == []
    assert [one.name for one in Leftovers(tmp_path).all()] == ["evomerge-left"]


def test_a_folder_that_is_not_ours_is_never_removed(family: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    with running(start(family)) as server:
        Leftovers(tmp_path).add(Leftover(server.url, "evomerge-left", str(precious)))
        asked(backend(server, "vllm", tmp_path), merge({"one": 1.0}), REQUESTS[:1])
    assert precious.is_dir()


def test_a_load_that_is_cancelled_leaves_nothing(family: Path, tmp_path: Path) -> None:
    async def cancel() -> None:
        service = backend(server, "vllm", tmp_path, folder="shared")
        for steps in (0, 1, 2, 5, 10, 20, 40):
            held = asyncio.ensure_future(service.hold(SUM).__aenter__())
            for _ in range(steps):
                await asyncio.sleep(0)
            held.cancel()
            await asyncio.wait([held])
            if not held.cancelled() and held.exception() is None:
                raise AssertionError("it was held before it could be cancelled")
        await service.close()

    with running(start(family)) as server:
        asyncio.run(cancel())
        assert is_clean(server, tmp_path)


@pytest.mark.parametrize(
    ("started", "settings", "recipe", "said"),
    [
        ({}, {}, SUM, "merges no adapters, it only loads them; name a folder"),
        ({"loads": False}, {"folder": "shared"}, SUM, "VLLM_ALLOW_RUNTIME_LORA_UPDATING"),
        ({"widest": 7}, {"folder": "shared"}, SUM, "rank 8 is greater than max_lora_rank 7"),
        ({}, {"folder": "shared"}, merge({"one": 1.0}, "ties", density=0.5), "has no ties for adapters, only linear"),
        ({}, {"folder": "shared"}, merge({"onee": 1.0}), r"no adapter 'onee'; did you mean 'one'\?"),
    ],
)
def test_what_it_cannot_is_said_before_the_start(
    started: dict[str, Any], settings: dict[str, Any], recipe: ServedMerge, said: str, family: Path, tmp_path: Path
) -> None:
    with running(start(family, **started)) as server:
        plan = backend(server, "vllm", tmp_path, **settings).plan(recipe)
        assert is_clean(server, tmp_path)
    assert isinstance(plan, Unsupported)
    assert re.search(said, plan.reason), plan.reason


def test_paths_that_cannot_be_read_here_are_said_before_the_start(family: Path, tmp_path: Path) -> None:
    with running(start(family)) as server:
        server.served["one"] = (Path("/nowhere/one"), server.served["one"][1])
        plan = backend(server, "vllm", tmp_path, folder="shared").plan(SUM)
    assert isinstance(plan, Unsupported)
    assert "readable on this machine" in plan.reason
    assert "/nowhere/one" in plan.reason


def test_the_plan_leaves_nothing_even_after_an_earlier_one_was_killed(family: Path, tmp_path: Path) -> None:
    with running(start(family)) as server:
        service = backend(server, "vllm", tmp_path, folder="shared")
        assert isinstance(service.plan(SUM), Placement)
        [name] = server.loaded
        (tmp_path / "shared" / name).mkdir()
        server.served[name] = server.served["one"]
        assert isinstance(backend(server, "vllm", tmp_path, folder="shared").plan(SUM), Placement)
        assert server.loaded == [name, name]
        assert is_clean(server, tmp_path)


def test_a_server_that_was_started_anew_is_a_reason_to_ask_the_trial_again(family: Path, tmp_path: Path) -> None:
    async def forget() -> None:
        service = backend(server, "vllm", tmp_path, folder="shared")
        with pytest.raises(BackendError, match="no longer serves"):
            async with service.hold(SUM) as model:
                del server.served[server.loaded[-1]]
                async for _ in model.answer(REQUESTS):
                    pass
        async with service.hold(SUM) as model:
            assert [answer.failure async for _, answer in model.answer(REQUESTS)] == [None] * len(REQUESTS)
        await service.close()

    with running(start(family)) as server:
        asyncio.run(forget())
        assert is_clean(server, tmp_path)


def test_weights_that_overflow_are_told_to_the_search(family: Path, tmp_path: Path) -> None:
    with running(start(family)) as server:
        with pytest.raises(CandidateError, match="smaller weights"):
            asked(backend(server, "vllm", tmp_path, folder="shared"), merge({"one": 1e39, "two": 1.0}), REQUESTS)
        assert is_clean(server, tmp_path)


def test_a_density_of_nothing_leaves_an_adapter_out(family: Path, tmp_path: Path) -> None:
    none = ServedInput(ServedAdapter("wide"), {"weight": 1.0, "density": 0.0})
    some = ServedInput(ServedAdapter("wide"), {"weight": 1.0, "density": 0.5})
    alone = ServedInput(ServedAdapter("one"), {"weight": 1.0})
    with running(start(family)) as server:
        said = [
            [one.text for one in asked(backend(server, "vllm", tmp_path, folder="shared"), recipe, REQUESTS)]
            for recipe in (ServedMerge("linear", inputs) for inputs in ((alone, none), (alone, some), (alone,)))
        ]
    assert said[0] == said[2] != said[1]


def test_a_density_keeps_the_largest_entries() -> None:
    a = torch.tensor([[0.5, -0.1], [-0.3, 0.2]])
    assert kept(a, 0.5).tolist() == [[0.5, 0.0], [pytest.approx(-0.3), 0.0]]
    assert kept(a, 0.01).tolist() == [[0.5, 0.0], [0.0, 0.0]]
    assert kept(a, 1.0) is a
    assert not kept(a, 0.0).any()
