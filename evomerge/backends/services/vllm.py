"""vLLM as a service: adapters by the names that it serves them under; it merges none.

An adapter alone is asked by its name. A merge is computed here as the exact sum (any ranks, any signs; each adapter may
have a density of its own), where the server tells paths that can be read here too, written to a folder that both see,
loaded, and taken back afterwards. What was loaded stands in a note first, so that nothing of ours outlives a kill for
longer than until the study is started again.

Source: docs/features/lora.md of vLLM (`/v1/load_lora_adapter`, `/v1/unload_lora_adapter`, `/v1/models`, `/tokenize`).
"""

import asyncio
import hashlib
import secrets
import shutil
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from evomerge.backends.api.faults import Barred, Malformed, Misplaced, Refused, Transient
from evomerge.backends.services.asked import completed, first, listed, mapped, turns
from evomerge.backends.services.dialect import Ask, number, refused_parameters, weights_of
from evomerge.backends.services.exact import Part, Sums
from evomerge.backends.services.judging import Prompts, Read, judged
from evomerge.backends.services.leftovers import Leftover, Leftovers
from evomerge.backends.services.line import Line
from evomerge.backends.services.offer import Held, Offer
from evomerge.errors import BackendError, CandidateError, ConfigError
from evomerge.exchange import Answer, Generate, Judge, Request, Sampling
from evomerge.recipe.served import ServedMerge

OURS = "evomerge-"
"""What the names of our adapters at a server begin with."""
_UNLIKE = "it does not tell its models as vLLM does"


class Vllm:
    """A vLLM server at the end of a line; `folder` is seen by it too, None where there is no such place."""

    title = "vLLM"

    def __init__(self, line: Line, url: str, folder: Path | None, leftovers: Leftovers) -> None:
        self._line, self._url, self._folder, self._leftovers = line, url, folder, leftovers
        self._sums: dict[str, Sums] = {}
        self._prompts = Prompts(self._tokens)

    async def offer(self) -> Offer:
        """Return the model and the adapters that are served; those of ours are left out."""
        served = listed(mapped(await self._line.tell("/v1/models"), _UNLIKE).get("data"), _UNLIKE)
        base = next((one for one in served if not one.get("parent")), None)
        if base is None:
            raise Malformed("it serves no model")
        adapters = (
            Held(str(one["id"]), str(one.get("root") or ""), str(one["id"]))
            for one in served
            if one.get("parent") and not str(one["id"]).startswith(OURS)
        )
        path = str(base.get("root") or "")
        return Offer(str(base["id"]), f"{base['id']} {path}", tuple(adapters), path=path)

    def refusal(self, recipe: ServedMerge, offer: Offer) -> str | None:
        """Sums need a folder, and paths that can be read here."""
        refused = refused_parameters(recipe, self.title, {"linear"}, own_density=True)
        if refused is not None or _alone(recipe):
            return refused
        if self._folder is None:
            return (
                "vLLM merges no adapters, it only loads them; name a folder that it sees under the same path as this "
                "machine does (folder:), and evomerge merges them there"
            )
        try:
            for adapter in recipe.ids:
                self._of(offer).rank(offer.mark_of(adapter))
        except (ConfigError, CandidateError) as error:
            return (
                "vLLM merges no adapters, so evomerge does, and for that the paths that vLLM tells have to be readable "
                f"on this machine: {error}"
            )
        return None

    async def trial(self, recipe: ServedMerge, offer: Offer) -> str | None:
        """Load the merge once and take it back: whether the server may, sees the folder and takes the rank.

        The name is always the same, so that what a kill left of an earlier trial is taken back by the next.
        """
        if _alone(recipe) or self._folder is None:
            return None
        if await self._line.status("/v1/load_lora_adapter", {}) in (404, 405):
            return (
                "this vLLM loads no adapters while it runs; start it with --enable-lora and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
            )
        of = hashlib.sha256(f"{self._url} {self._folder}".encode()).hexdigest()[:16]
        leftover = Leftover(self._url, f"{OURS}trial-{of}", str(self._folder / f"{OURS}trial-{of}"))
        await self._take_back(leftover)
        try:
            await self._give(leftover, recipe, offer)
        except (CandidateError, BackendError) as error:
            return str(error)
        finally:
            await asyncio.shield(self._take_back(leftover))
        return None

    def manner(self, recipe: ServedMerge) -> str:
        """The exact sum, or an adapter as it is."""
        if _alone(recipe):
            return "an adapter as it is"
        return f"the exact sum of {len(recipe.inputs)} adapters, merged here and loaded there while it is asked"

    @asynccontextmanager
    async def hold(self, recipe: ServedMerge, offer: Offer) -> AsyncGenerator[Ask]:
        """Hold the base, an adapter by its name, or a sum that is loaded until this is left."""
        if _alone(recipe):
            yield partial(self._ask, recipe.ids[0] if recipe.inputs else offer.base)
            return
        if self._folder is None:
            raise CandidateError("vLLM merges no adapters, and there is no folder for merged ones")
        name = f"{OURS}{secrets.token_hex(8)}"
        leftover = Leftover(self._url, name, str(self._folder / name))
        self._leftovers.add(leftover)
        giving = asyncio.create_task(self._give(leftover, recipe, offer))
        try:
            await asyncio.shield(giving)
            yield partial(self._ask, name)
        finally:  # a load that is under way ends first, so that it is not taken back before it is there
            await asyncio.shield(self._forget(leftover, giving))

    async def clear(self) -> None:
        """Take back what is noted. What is at another address stays noted: this key is for this server."""
        for leftover in self._leftovers.all():
            if leftover.url == self._url:
                await self._forget(leftover)

    async def _give(self, leftover: Leftover, recipe: ServedMerge, offer: Offer) -> None:
        """Write a merge and have it loaded. Raises CandidateError, BackendError, Fault."""
        await asyncio.to_thread(self._write, Path(leftover.folder), recipe, offer)
        try:
            await self._line.order("/v1/load_lora_adapter", {"lora_name": leftover.name, "lora_path": leftover.folder})
        except Refused as refused:
            raise CandidateError(f"vLLM does not take the merged adapter in {leftover.folder}: {refused}") from None

    async def _forget(self, leftover: Leftover, giving: "asyncio.Task[None] | None" = None) -> None:
        """Take an adapter back, and its note; it stays noted where the server does not answer."""
        if giving is not None:
            with suppress(Exception):
                await giving
        with suppress(Transient, Barred):
            await self._take_back(leftover)
            self._leftovers.remove(leftover)

    async def _take_back(self, leftover: Leftover) -> None:
        """Unload an adapter, if the server has it, and remove its folder. Raises Transient, Barred."""
        with suppress(Refused):
            await self._line.order("/v1/unload_lora_adapter", {"lora_name": leftover.name})
        if Path(leftover.folder).name.startswith(OURS):
            await asyncio.to_thread(shutil.rmtree, leftover.folder, ignore_errors=True)

    def _write(self, folder: Path, recipe: ServedMerge, offer: Offer) -> None:
        parts = [
            Part(offer.mark_of(item.adapter.id), weight, number(item.params.get("density", 1.0)))
            for item, weight in zip(recipe.inputs, weights_of(recipe), strict=True)
        ]
        try:
            folder.mkdir(parents=True)
            self._of(offer).write(folder, parts)
        except OSError as error:
            raise BackendError(f"a merged adapter cannot be written to {folder} ({error.strerror})") from None

    def _of(self, offer: Offer) -> Sums:
        if offer.path not in self._sums:
            self._sums[offer.path] = Sums(offer.path)
        return self._sums[offer.path]

    async def _ask(self, name: str, request: Request) -> Answer:
        try:
            if isinstance(request, Judge):
                return await judged(request, self._prompts, partial(self._read, name))
            return await self._generated(name, request)
        except Misplaced as fault:  # the server was started anew, and knows the name no longer
            raise BackendError(f"vLLM no longer serves '{name}': {fault}") from None

    async def _generated(self, name: str, request: Generate) -> Answer:
        sampling, messages = request.sampling, turns(request.prompt)
        body = {"model": name, "max_tokens": sampling.max_tokens, **_sampled(sampling)}
        read = partial(completed, sampling=sampling)
        if messages is None:
            return await self._line.ask("/v1/completions", body | {"prompt": request.prompt}, read)
        return await self._line.ask("/v1/chat/completions", body | {"messages": messages}, read)

    async def _tokens(self, text: str) -> Sequence[int]:
        """Return the server's own tokens of a text."""
        return await self._line.ask("/tokenize", {"prompt": text, "add_special_tokens": True}, _tokenized)

    async def _read(self, name: str, text: str) -> Read:
        """Return the tokens of a text with their log-probabilities; the one token that follows is not used."""
        ids = await self._prompts.tokens(text)
        body = {"model": name, "prompt": list(ids), "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        return await self._line.ask("/v1/completions", body, partial(_prefilled, ids=ids))


def _alone(recipe: ServedMerge) -> bool:
    """Return whether a merge is the base, or one adapter as it is."""
    as_it_is = len(recipe.inputs) == 1 and weights_of(recipe) == [1.0] and "density" not in recipe.inputs[0].params
    return not recipe.inputs or as_it_is


def _sampled(sampling: Sampling) -> dict[str, Any]:
    keys: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    if stops := [stop for stop in sampling.stop if stop]:
        keys["stop"] = stops
    return keys if sampling.seed is None else {**keys, "seed": sampling.seed}


def _tokenized(reply: Mapping[str, Any]) -> Sequence[int]:
    """Return the tokens of a text. Raises Malformed."""
    found: Any = reply.get("tokens")
    if not isinstance(found, list):
        raise Malformed("it sent no tokens")
    return cast("list[int]", found)


def _prefilled(reply: Mapping[str, Any], ids: Sequence[int]) -> Read:
    """Return the tokens of what was read, and their log-probabilities but for the first. Raises Malformed."""
    told: Any = first(reply.get("choices")).get("prompt_logprobs")
    if not isinstance(told, list) or len(cast("list[Any]", told)) != len(ids):
        raise Malformed("it sent no likelihoods of the prompt")
    given = cast("list[Mapping[str, Mapping[str, float]] | None]", told)
    try:
        return [(one, None if of is None else of[str(one)]["logprob"]) for one, of in zip(ids, given, strict=True)]
    except KeyError:
        raise Malformed("it sent likelihoods of other tokens than it was asked") from None
