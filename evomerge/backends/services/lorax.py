"""LoRAX: adapters by their ids, merged when a request first names such a merge, and kept in the server's cache.

It merges the factors A and B of each module separately (weights enter A and B alike, so that the result has cross terms,
and all weights negated give the same model), by linear, ties, dare_linear or dare_ties, with one density for all
adapters. They need equal ranks; the scale (alpha / rank) of the first holds for all. DARE's random masks are drawn
anew whenever a merge is loaded, and the kept entries are not scaled up. A merge of one adapter ignores its weight.

Sources: docs/guides/merging_adapters.md, docs/reference/openapi.json, router/src/validation.rs and
server/lorax_server/utils/merges of LoRAX. Its OpenAI routes know no merges, so `/generate` is asked.
"""

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from evomerge.backends.api.faults import Fault, Malformed
from evomerge.backends.services.asked import answered, listed, mapped, turns
from evomerge.backends.services.dialect import Ask, number, refused_parameters, weights_of
from evomerge.backends.services.judging import Prompts, Read, judged
from evomerge.backends.services.line import Line
from evomerge.backends.services.offer import Offer
from evomerge.exchange import Answer, Failure, Judge, Request, Sampling
from evomerge.recipe.served import ServedMerge

METHODS = frozenset({"linear", "ties", "dare_linear", "dare_ties"})
R = TypeVar("R")
_TRIED = "1"
_TRIALS = 2
_STOPS = 4


class Lorax:
    """A LoRAX server at the end of a line."""

    title = "LoRAX"

    def __init__(self, line: Line, source: str | None) -> None:
        self._line = line
        self._source = {} if source is None else {"adapter_source": source}
        self._prompts = Prompts(self._tokens)

    async def offer(self) -> Offer:
        """Return the model; LoRAX tells no list of adapters, as it fetches them by their ids."""
        told = mapped(await self._line.tell("/info"), "it does not tell its model as LoRAX does")
        if "model_id" not in told:
            raise Malformed("it does not tell its model as LoRAX does")
        dtype = str(told.get("model_dtype") or "").removeprefix("torch.")
        mark = f"{told['model_id']} {told.get('model_sha')} {self._source}"
        return Offer(str(told["model_id"]), mark, None, dtype or None)

    def refusal(self, recipe: ServedMerge, offer: Offer) -> str | None:  # noqa: ARG002  # the contract's arguments
        """One density for all, and no weight for an adapter alone."""
        refused = refused_parameters(recipe, self.title, METHODS, own_density=False)
        if refused is None and len(recipe.inputs) == 1 and weights_of(recipe) != [1.0]:
            return "LoRAX ignores the weight of an adapter that is alone; name a second one, or leave the weight at 1"
        return refused

    async def trial(self, recipe: ServedMerge, offer: Offer) -> str | None:  # noqa: ARG002  # the contract's arguments
        """Ask for one token of the merge and, where that fails, for one of each adapter alone."""
        complaint = await self._tried(self._named(recipe))
        if complaint is None:
            return None
        for adapter in recipe.ids:
            alone = await self._tried({"adapter_id": adapter, **self._source})
            if alone is not None:
                return f"LoRAX does not load the adapter '{adapter}': {alone}"
        if "rank" in complaint:
            return f"LoRAX merges adapters of equal rank only, and of these {complaint}; leave some of them out"
        return f"LoRAX loads each of these adapters and not their merge: {complaint}"

    def manner(self, recipe: ServedMerge) -> str:
        """Which merge it is, and what is random about it."""
        drawn = "; its random masks are drawn anew at each load, so scores do not repeat exactly"
        random = drawn if recipe.method.startswith("dare") else ""
        return f"a {recipe.method} merge of {len(recipe.inputs)} adapters' factors, loaded for each recipe{random}"

    @asynccontextmanager
    async def hold(self, recipe: ServedMerge, offer: Offer) -> AsyncGenerator[Ask]:  # noqa: ARG002  # the contract's arguments
        """Hold a merge: it is named in every request, and the server's cache forgets it when others need its room."""
        yield partial(self._ask, self._named(recipe))

    async def clear(self) -> None:
        """Nothing can be taken back: the server has no way to forget a merge but its own cache."""

    def _named(self, recipe: ServedMerge) -> dict[str, Any]:
        """Return the keys that name a merge, an adapter alone, or nothing for the base."""
        if not recipe.inputs:
            return {}
        if len(recipe.inputs) == 1:
            return {"adapter_id": recipe.ids[0], **self._source}
        merged: dict[str, Any] = {"ids": list(recipe.ids), "weights": weights_of(recipe)}
        merged["merge_strategy"] = recipe.method
        if "density" in recipe.params:
            merged["density"] = number(recipe.params["density"])
        if "majority_sign" in recipe.params:
            merged["majority_sign_method"] = recipe.params["majority_sign"]
        return {"merged_adapters": merged, **self._source}

    async def _tried(self, named: Mapping[str, Any]) -> str | None:
        try:
            await self._asked(_TRIED, {"max_new_tokens": 1, **named}, _details, attempts=_TRIALS)
        except Fault as fault:
            return str(fault)
        return None

    async def _ask(self, named: Mapping[str, Any], request: Request) -> Answer:
        if isinstance(request, Judge):
            return await judged(request, self._prompts, partial(self._read, named=named))
        sampling, messages = request.sampling, turns(request.prompt)
        if len(sampling.stop) > _STOPS:
            return Answer(failure=Failure("refused", f"LoRAX takes {_STOPS} stop strings at most"))
        inputs = request.prompt if messages is None else json.dumps(messages)
        chat = {} if messages is None else {"apply_chat_template": True}
        return await self._asked(inputs, {**_sampled(sampling), **chat, **named}, partial(_generated, sampling=sampling))

    async def _tokens(self, prompt: str) -> list[int]:
        return [token for token, _ in await self._read(prompt, {})]

    async def _read(self, text: str, named: Mapping[str, Any]) -> Read:
        """Return the tokens of a text with their log-probabilities; the one token that follows is not used."""
        return await self._asked(text, {"max_new_tokens": 1, "decoder_input_details": True, **named}, _prefilled)

    async def _asked(
        self,
        inputs: Any,
        parameters: Mapping[str, Any],
        read: Callable[[Mapping[str, Any]], R],
        attempts: int | None = None,
    ) -> R:
        body = {"inputs": inputs, "parameters": {"details": True, "return_full_text": False, **parameters}}
        return await self._line.ask("/generate", body, read, attempts=attempts)


def _sampled(sampling: Sampling) -> dict[str, Any]:
    """Return the keys that decide how an answer is drawn: greedy unless there is a temperature."""
    keys: dict[str, Any] = {"max_new_tokens": sampling.max_tokens, "do_sample": sampling.temperature > 0}
    if sampling.temperature > 0:
        keys["temperature"] = sampling.temperature
        if sampling.top_p < 1:
            keys["top_p"] = sampling.top_p
    if stops := [stop for stop in sampling.stop if stop]:
        keys["stop"] = stops
    if sampling.seed is not None:
        keys["seed"] = sampling.seed
    return keys


def _generated(reply: Mapping[str, Any], sampling: Sampling) -> Answer:
    """Return the answer of `/generate`. Raises Malformed."""
    details = _details(reply)
    limited = details.get("finish_reason") == "length"
    read, written = details.get("prompt_tokens"), details.get("generated_tokens")
    return answered(reply.get("generated_text"), sampling, limited=limited, read=read, written=written)


def _prefilled(reply: Mapping[str, Any]) -> Read:
    """Return the tokens of what was read, and their log-probabilities but for the first. Raises Malformed."""
    prefill = listed(_details(reply).get("prefill"), "it sent no likelihoods of the prompt")
    if not prefill:
        raise Malformed("it sent no likelihoods of the prompt")
    return [(_token(one.get("id")), None if at == 0 else _logprob(one.get("logprob"))) for at, one in enumerate(prefill)]


def _details(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapped(reply.get("details"), "its answer holds no details")


def _token(value: Any) -> int:
    if not isinstance(value, int):
        raise Malformed("a token of its is no number")
    return value


def _logprob(value: Any) -> float:
    if not isinstance(value, float | int):
        raise Malformed("a likelihood of its is no number")
    return float(value)
