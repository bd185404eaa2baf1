"""Every kind of service keeps the promises of a backend, and answers as the weights that it was asked for do."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from evomerge.backends.local import LocalBackend
from evomerge.backends.protocol import Placement, Unsupported
from evomerge.backends.services.backend import ServiceBackend
from evomerge.backends.settings import LocalSettings
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import CandidateError
from evomerge.exchange import Answer, Generate, Judge, Message, Request, Sampling
from evomerge.recipe.served import ServedMerge
from evomerge.recipe.tree import Input, Merge, Source
from evomerge.testing.backends import BackendCase, answers, check_backend
from tests.backends.services.support import PROMPTS, adapters, asked, backend, merge
from tests.support.services import LlamaCppServer, LoraxServer, StandIn, VllmServer, running

GENERATED: list[Request] = [
    *(Generate(prompt, Sampling(8)) for prompt in PROMPTS),
    Generate((Message("user", "hello"),), Sampling(5)),
]
JUDGED: list[Request] = [Judge(prompt, ("abcd", "x", "")) for prompt in PROMPTS]


@dataclass(frozen=True)
class Kind:
    """A kind of service: its stand-in, its settings, and a merge that it cannot make."""

    dialect: str
    start: Callable[[Path], StandIn]
    unknown: ServedMerge
    likelihoods: bool = True
    folder: bool = False

    def backend(self, server: StandIn, place: Path) -> ServiceBackend:
        further = {"folder": str(place / "shared")} if self.folder else {}
        return backend(server, self.dialect, place, max_in_flight=4, **further)


def start_lorax(folder: Path) -> StandIn:
    return LoraxServer(folder / "base", adapters(folder))


def start_llama_cpp(folder: Path) -> StandIn:
    return LlamaCppServer(folder / "base", adapters(folder))


def start_vllm(folder: Path) -> StandIn:
    return VllmServer(folder / "base", adapters(folder))


LORAX = Kind("lorax", start_lorax, merge({"one": 0.5}))
LLAMA_CPP = Kind("llama.cpp", start_llama_cpp, merge({"nobody": 1.0}), likelihoods=False)
VLLM = Kind("vllm", start_vllm, merge({"one": 1.0, "two": 1.0}, "ties", density=0.5), folder=True)
KINDS = pytest.mark.parametrize("kind", [LORAX, LLAMA_CPP, VLLM], ids=lambda kind: kind.dialect)


@KINDS
def test_it_keeps_every_promise_of_a_backend(kind: Kind, family: Path, tmp_path: Path) -> None:
    case = BackendCase(
        recipe=merge({"one": 1.0, "two": 0.5}),
        other=merge({"one": 1.0, "two": -1.0}),
        unknown=kind.unknown,
        prompts=PROMPTS,
        parts=("ab", "c", "de"),
        likelihoods=kind.likelihoods,
    )
    with running(kind.start(family)) as server:
        asyncio.run(check_backend(kind.backend(server, tmp_path), case))


@KINDS
def test_the_plan_names_the_service_its_base_and_the_rate(kind: Kind, family: Path, tmp_path: Path) -> None:
    with running(kind.start(family)) as server:
        placement = kind.backend(server, tmp_path).plan(merge({"one": 1.0, "two": 0.5}))
    assert isinstance(placement, Placement), placement
    assert server.url.partition("//")[2] in placement.summary
    assert "base" in placement.summary
    assert "4 at a time" in placement.summary


@KINDS
def test_what_is_no_merge_of_its_adapters_is_refused(kind: Kind, family: Path, tmp_path: Path) -> None:
    with running(kind.start(family)) as server:
        service = kind.backend(server, tmp_path)
        plan = service.plan(Source(str(family / "base")))
        assert isinstance(plan, Unsupported)
        assert "adapter" in plan.reason
        with pytest.raises(CandidateError):
            asyncio.run(service.hold(Source(str(family / "base"))).__aenter__())


def exact(family: Path, weights: dict[str, float], requests: list[Request]) -> list[Answer]:
    """Return the answers of the exact sum of adapters, by the embedded backend."""
    inputs = tuple(Input(Source(str(family / name)), {"weight": weight}) for name, weight in weights.items())
    store = WeightStore()
    recipe = store.resolve(Merge("task_arithmetic", inputs, Source(str(family / "base"))), family)
    local = LocalBackend(LocalSettings.model_validate({"device": "cpu"}), store)

    async def ask() -> list[Answer]:
        async with local.hold(recipe) as model:
            return await answers(model, requests)

    return asyncio.run(ask())


@pytest.mark.parametrize("weights", [{"one": 0.7, "two": -0.6, "wide": 0.4}, {"wide": 1.0}, {"two": 0.5}])
@pytest.mark.parametrize("kind", [LLAMA_CPP, VLLM], ids=lambda kind: kind.dialect)
def test_a_sum_answers_as_the_embedded_backend_does(
    kind: Kind, weights: dict[str, float], family: Path, tmp_path: Path
) -> None:
    with running(kind.start(family)) as server:
        found = asked(kind.backend(server, tmp_path), merge(weights), GENERATED)
    assert [(one.text, one.finish, one.usage) for one in found] == [
        (one.text, one.finish, one.usage) for one in exact(family, weights, GENERATED)
    ]


@pytest.mark.parametrize("kind", [LORAX, VLLM], ids=lambda kind: kind.dialect)
def test_an_adapter_alone_judges_as_the_embedded_backend_does(kind: Kind, family: Path, tmp_path: Path) -> None:
    with running(kind.start(family)) as server:
        found = asked(kind.backend(server, tmp_path), merge({"wide": 1.0}), JUDGED)
    for one, expected in zip(found, exact(family, {"wide": 1.0}, JUDGED), strict=True):
        for said, right in zip(one.likelihoods, expected.likelihoods, strict=True):
            assert said.tokens == right.tokens
            assert said.logprob == pytest.approx(right.logprob, abs=1e-4)


@KINDS
def test_without_adapters_it_is_the_base(kind: Kind, family: Path, tmp_path: Path) -> None:
    with running(kind.start(family)) as server:
        found = asked(kind.backend(server, tmp_path), merge({}), GENERATED)
    base = exact(family, {"one": 0.0}, GENERATED)
    assert [one.text for one in found] == [one.text for one in base]


@KINDS
def test_stop_strings_end_an_answer_and_are_not_in_it(kind: Kind, family: Path, tmp_path: Path) -> None:
    recipe = merge({"one": 1.0, "two": 0.5})
    with ExitStack() as stack:
        server = stack.enter_context(running(kind.start(family)))
        [whole] = asked(kind.backend(server, tmp_path), recipe, [Generate(PROMPTS[1], Sampling(8))])
        assert whole.text is not None
        stop = whole.text[2:4]
        [cut] = asked(kind.backend(server, tmp_path), recipe, [Generate(PROMPTS[1], Sampling(8, stop=(stop,)))])
    assert (cut.text, cut.finish) == (whole.text.partition(stop)[0], "stop")
