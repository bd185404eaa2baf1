"""LoRAX: merges are named in requests; what it cannot merge is known before the start."""

import re
from pathlib import Path
from typing import Any

import pytest

from evomerge.backends.protocol import Placement, Unsupported
from evomerge.exchange import Generate, Message, Request, Sampling
from evomerge.recipe.served import ServedMerge
from tests.backends.services.support import PROMPTS, adapters, asked, backend, merge
from tests.support.services import LoraxServer, running

REQUESTS: list[Request] = [Generate(prompt, Sampling(6)) for prompt in PROMPTS]
BOTH = {"one": 0.5, "two": -1.0}


@pytest.mark.parametrize(
    ("recipe", "named"),
    [
        (merge(BOTH), {"ids": ["one", "two"], "weights": [0.5, -1.0], "merge_strategy": "linear"}),
        (
            merge(BOTH, "ties", density=0.25, majority_sign="frequency"),
            {
                "ids": ["one", "two"], "weights": [0.5, -1.0], "merge_strategy": "ties", "density": 0.25,
                "majority_sign_method": "frequency",
            },
        ),
        (merge({"two": 1.0}), "two"),
        (merge({}), None),
    ],
)  # fmt: skip
def test_a_merge_is_named_in_every_request(recipe: ServedMerge, named: Any, family: Path, tmp_path: Path) -> None:
    with running(LoraxServer(family / "base", adapters(family))) as server:
        answers = asked(backend(server, "lorax", tmp_path, source="local"), recipe, REQUESTS)
        assert all(answer.failure is None for answer in answers)
        for body in server.asked:
            parameters = body["parameters"]
            assert (parameters.get("merged_adapters") or parameters.get("adapter_id")) == named
            assert parameters.get("adapter_source") == (None if named is None else "local")
        assert len(server.asked) == len(REQUESTS)
        assert server.loads == (0 if named is None else 1)


@pytest.mark.parametrize("method", ["ties", "dare_linear", "dare_ties"])
def test_weights_and_density_decide_answers(method: str, family: Path, tmp_path: Path) -> None:
    with running(LoraxServer(family / "base", adapters(family))) as server:
        recipes = [merge(BOTH, method, density=density) for density in (0.3, 1.0)]
        recipes.append(merge({"one": 1.0, "two": 1.0}, method, density=1.0))
        said = [[one.text for one in asked(backend(server, "lorax", tmp_path), recipe, REQUESTS)] for recipe in recipes]
    assert said[0] != said[1] != said[2]


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (merge({"one": 1.0, "wide": 1.0}), r"equal rank only, and of these it answered 424: .*\{3, 5\}"),
        (merge({"one": 1.0, "nobody": 1.0}), "does not load the adapter 'nobody': it answered 424: .*Not Found"),
        (merge({"one": 0.5}), "ignores the weight of an adapter that is alone"),
    ],
)
def test_what_it_cannot_is_said_before_the_start(recipe: ServedMerge, said: str, family: Path, tmp_path: Path) -> None:
    with running(LoraxServer(family / "base", adapters(family))) as server:
        plan = backend(server, "lorax", tmp_path).plan(recipe)
    assert isinstance(plan, Unsupported)
    assert re.search(said, plan.reason), plan.reason


def test_a_merge_is_tried_once_whatever_the_weights(family: Path, tmp_path: Path) -> None:
    with running(LoraxServer(family / "base", adapters(family))) as server:
        service = backend(server, "lorax", tmp_path)
        for weight in (0.1, 0.2, 0.3):
            assert isinstance(service.plan(merge({"one": 1.0, "two": weight})), Placement)
        assert len(server.asked) == 1
        assert server.asked[0]["parameters"]["max_new_tokens"] == 1


def test_the_plan_says_that_dare_does_not_repeat(family: Path, tmp_path: Path) -> None:
    with running(LoraxServer(family / "base", adapters(family))) as server:
        plan = backend(server, "lorax", tmp_path).plan(merge(BOTH, "dare_ties", density=0.5))
    assert isinstance(plan, Placement)
    assert "do not repeat" in plan.summary
    assert plan.dtype == "float32"


def test_a_chat_goes_through_the_servers_template(family: Path, tmp_path: Path) -> None:
    chat = Generate((Message("system", "be brief"), Message("user", "hello")), Sampling(5))
    with running(LoraxServer(family / "base", adapters(family))) as server:
        [answer] = asked(backend(server, "lorax", tmp_path), merge(BOTH), [chat])
    assert answer.failure is None
    assert server.asked[0]["parameters"]["apply_chat_template"] is True


def test_sampling_is_sent_as_the_server_takes_it(family: Path, tmp_path: Path) -> None:
    greedy = Generate("a", Sampling(4))
    drawn = Generate("a", Sampling(4, temperature=0.7, top_p=0.9, seed=3, stop=("x", "")))
    many = Generate("a", Sampling(4, stop=tuple("abcde")))
    with running(LoraxServer(family / "base", adapters(family))) as server:
        answers = asked(backend(server, "lorax", tmp_path, max_in_flight=1), merge(BOTH), [greedy, drawn, many])
        first, second = (body["parameters"] for body in server.asked)
    assert first["do_sample"] is False
    assert "temperature" not in first
    assert (second["temperature"], second["top_p"], second["seed"], second["stop"]) == (0.7, 0.9, 3, ["x"])
    assert answers[2].failure is not None
    assert "4 stop strings" in answers[2].failure.message
