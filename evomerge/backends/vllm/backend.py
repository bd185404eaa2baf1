"""vLLM behind the backend's protocol: whole models are swapped into a running engine, adapters loaded beside its base.

A whole model has the engine for itself; adapters share its batches, as many as there are slots. While the engine serves
adapters, its base is asked as an adapter of zeros and never directly: on a CPU, vLLM gives requests to the base that
share a batch with an adapter's the weights of that adapter. Every recipe has a prefix cache of its own (a salt), so
none reads what another's weights computed.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from evomerge.backends.in_flight import InFlight
from evomerge.backends.protocol import Placement, Unsupported
from evomerge.backends.vllm.adapters import AdapterRoom, zeros
from evomerge.backends.vllm.asking import Speaker
from evomerge.backends.vllm.link import Link, Refused
from evomerge.backends.vllm.serving import NO_LIKELIHOODS, Serving
from evomerge.backends.vllm.turns import Turns
from evomerge.backends.vllm.wire import to_wire
from evomerge.backends.weights.artifact import AdapterArtifact, CheckpointArtifact, LowRank
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import BackendError, CandidateError, ConfigError
from evomerge.exchange import Answer, Failure, Generate, Judge, Likelihood, Request, Usage
from evomerge.recipe.tree import Recipe, Source, WeightRecipe, as_weights, recipe_id


class Host(Protocol):
    """A server that can be asked: one of our own, or one that somebody else runs."""

    @property
    def starts(self) -> int:
        """How often it was started: what was swapped in or loaded before the last time is gone."""
        ...

    async def ready(self) -> Link:
        """Return the way to the server, started if need be. Raises BackendError."""
        ...

    async def stop(self) -> None:
        """End it, if it is ours."""
        ...


class VllmBackend:
    """One vLLM server; keeps the promises of `backends.protocol.Backend`."""

    def __init__(
        self,
        host: Host,
        store: WeightStore,
        serving: Serving,
        *,
        slots: int,
        width: int,
        room: AdapterRoom,
        planned: Callable[[WeightRecipe], Placement | Unsupported],
        opening: Mapping[str, Any] | None,
    ) -> None:
        """`slots` adapters are held at a time, `width` requests asked; `planned` says how a recipe would be held.

        `opening` is told to the worker extension after each start: which models to have at hand, and where.
        """
        self._host, self._store, self._serving = host, store, serving
        self._slots = slots if serving.adapters else 1
        self._width, self._room, self._planned, self._opening = width, room, planned, opening
        self._turns = Turns(self._slots)
        self._base = None if serving.base is None else recipe_id(serving.base)
        self._seen = 0
        self._holds: str | None = None
        self._asking = asyncio.Lock()
        self._names = count()
        self._speakers: dict[Path, Speaker] = {}
        self._served: tuple[str, int | None] = "", None
        self._closed = False

    @property
    def slots(self) -> int:
        """As many as adapters are served at a time; one for whole models."""
        return self._slots

    @property
    def batch_size(self) -> int | None:
        """None: a whole round is sent at once, and vLLM makes its own batches."""
        return None

    def plan(self, recipe: Recipe) -> Placement | Unsupported:
        """Say how the recipe would be held, from configurations and headers alone."""
        try:
            return self._planned(as_weights(recipe))
        except (CandidateError, ConfigError) as error:
            return Unsupported(str(error))

    @asynccontextmanager
    async def hold(self, recipe: Recipe) -> AsyncGenerator["VllmModel"]:
        """Hold the recipe, once it is its turn.

        Raises CandidateError when this recipe cannot be, BackendError when the server failed or the backend is closed.
        """
        weights = as_weights(recipe)
        artifact = await asyncio.to_thread(self._store.artifact, weights)
        as_adapter = self._serving.adapters and (isinstance(artifact, AdapterArtifact) or weights == self._serving.base)
        if as_adapter:
            async with (
                self._shared() as link,
                self._loaded(link, weights, artifact) as name,
                self._model(link, name, name, artifact.behaviour) as model,
            ):
                yield model
        elif isinstance(artifact, CheckpointArtifact):
            async with self._turns.alone():
                link = await self._link()
                await self._swap(link, weights)
                salt = f"{recipe_id(weights)}-{self._host.starts}"
                async with self._model(link, self._served[0], salt, artifact.behaviour) as model:
                    yield model
        else:
            raise CandidateError("this recipe becomes an adapter, and the server was started for whole models")

    async def close(self) -> None:
        """End the server, if it is ours, and remove what was written for it. Calling it twice is harmless."""
        async with self._turns.alone():
            self._closed = True
            await self._host.stop()
            self._room.close()

    async def _link(self) -> Link:
        """Return the way to a server whose state is known. Only while it is our turn."""
        if self._closed:
            raise BackendError("the backend is closed, so it can hold nothing")
        async with self._asking:
            link = await self._host.ready()
            if self._seen != self._host.starts or not self._served[0]:
                found = await link.models()
                model = next((one for one in found if not one.get("parent")), None)
                if model is None:
                    raise BackendError(f"the server at {link.url} serves no model")
                self._served = str(model["id"]), model.get("max_model_len")
                self._holds = self._base
                if self._opening is not None:
                    await _called(link, "evomerge_open", self._opening)
                self._seen = self._host.starts
            return link

    @asynccontextmanager
    async def _shared(self) -> AsyncGenerator[Link]:
        """Hold a slot beside the base, whose weights are put back first if others were swapped in."""
        while True:
            async with self._turns.shared():
                link = await self._link()
                if self._holds == self._base:
                    yield link
                    return
            async with self._turns.alone():
                base = self._serving.base
                if base is None:
                    raise BackendError("the base of the adapters is not known")
                await self._swap(await self._link(), base)

    async def _swap(self, link: Link, recipe: WeightRecipe) -> None:
        """Make the engine's weights the recipe's; nothing is written where it holds them already."""
        wanted = recipe_id(recipe)
        if self._holds == wanted:
            return
        self._holds = None
        await _called(link, "evomerge_hold", {"recipe": to_wire(recipe), "id": wanted})
        with suppress(Refused):  # each recipe has a salt of its own; this only frees what nobody will read again
            await link.forget_prefixes()
        self._holds = wanted

    @asynccontextmanager
    async def _loaded(
        self, link: Link, recipe: WeightRecipe, artifact: AdapterArtifact | CheckpointArtifact
    ) -> AsyncGenerator[str]:
        """Load a recipe's adapter under a name of its own; leaving unloads it."""
        name = f"{recipe_id(recipe)}-{next(self._names)}"
        base = artifact.base if isinstance(artifact, AdapterArtifact) else recipe
        if base != self._serving.base or not isinstance(base, Source):
            raise CandidateError("this adapter belongs to another base than the one that is served")
        try:
            folder = await asyncio.to_thread(self._written, name, recipe, base, artifact)
            try:
                await link.load_adapter(name, str(folder))
            except Refused as refused:
                raise CandidateError(f"vLLM does not take the adapter: {refused}") from None
            try:
                yield name
            finally:
                with suppress(Refused, BackendError):
                    await asyncio.shield(link.unload_adapter(name))
        finally:
            self._room.remove(name)

    def _written(
        self, name: str, recipe: WeightRecipe, base: Source, artifact: AdapterArtifact | CheckpointArtifact
    ) -> Path:
        factors: Mapping[str, LowRank]
        if isinstance(artifact, AdapterArtifact):
            factors = self._store.low_rank(recipe)
        else:
            factors = zeros(self._serving.modules)
        widest = max(low.a.shape[0] for low in factors.values())
        if widest > self._serving.rank:
            raise CandidateError(f"its adapter is {widest} wide, and the server was started for {self._serving.rank}")
        try:
            return self._room.write(name, factors, base, self._serving.modules)
        except OSError as error:
            raise BackendError(f"an adapter cannot be written for the server ({error.strerror})") from None

    @asynccontextmanager
    async def _model(self, link: Link, name: str, salt: str, behaviour: Path) -> AsyncGenerator["VllmModel"]:
        if behaviour not in self._speakers:
            self._speakers[behaviour] = await asyncio.to_thread(Speaker.of, behaviour, self._served[1])
        judges = not self._serving.changes_head
        model = VllmModel(link, name, salt, self._speakers[behaviour], self._width, judges=judges)
        try:
            yield model
        finally:
            await model.stop()


class VllmModel:
    """A recipe that can be asked, until `hold` is left."""

    def __init__(self, link: Link, name: str, salt: str, speaker: Speaker, width: int, *, judges: bool) -> None:
        self._link, self._speaker, self._judges = link, speaker, judges
        self._always = {"model": name, "cache_salt": salt}
        self._under_way = InFlight(self._ask, width)

    def answer(self, requests: Sequence[Request]) -> AsyncIterator[tuple[int, Answer]]:
        """Answer one batch; yields (index into `requests`, answer) as answers come, each index once.

        Raises CandidateError where the model gives no numbers, BackendError where the server failed, and ConfigError
        for messages where the tokenizer has no chat template, and for likelihoods where vLLM would tell none.
        """
        return self._under_way.answers(requests)

    async def stop(self) -> None:
        """Cancel whatever is still asked."""
        await self._under_way.stop()

    async def _ask(self, request: Request) -> Answer:
        if isinstance(request, Judge) and not self._judges:  # on a CPU the engine would die of it
            raise ConfigError(f"backend: {NO_LIKELIHOODS}")
        refusal = self._speaker.refusal(request)
        if refusal is not None:
            return refusal
        try:
            if isinstance(request, Generate):
                return self._speaker.generated(request, await self._said(self._speaker.generating(request)))
            return await self._judged(request)
        except Refused as refused:
            return Answer(failure=Failure("refused", f"vLLM refuses the request: {refused}"))

    async def _judged(self, request: Judge) -> Answer:
        found: list[Likelihood] = []
        splits = self._speaker.splits(request)
        for split in splits:
            if split.start >= len(split.ids):
                found.append(Likelihood(0.0, 0))
            else:
                found.append(self._speaker.judged(split, await self._said(self._speaker.judging(split))))
        return Answer(likelihoods=tuple(found), usage=Usage(sum(len(split.ids) for split in splits), 0))

    async def _said(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self._link.complete({**body, **self._always})


async def _called(link: Link, method: str, argument: Mapping[str, Any]) -> None:
    """Call the worker extension. Raises what any worker says went wrong."""
    try:
        told = await link.call(method, argument)
    except Refused as refused:
        raise BackendError(f"the server at {link.url} swaps no weights ({refused})") from None
    for one in told:
        if "error" in one:
            raise _error(str(one.get("kind")), str(one["error"]))


def _error(kind: str, sentence: str) -> Exception:
    match kind:
        case "candidate":
            return CandidateError(sentence)
        case "config":
            return ConfigError(sentence)
        case _:
            return BackendError(sentence)
