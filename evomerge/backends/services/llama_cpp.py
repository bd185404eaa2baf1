"""llama.cpp's server: adapters that were loaded at its start, each with a scale of its own in every request.

The result is the exact sum of the adapters, each times its weight: any ranks, any signs. Every adapter of the server is
named in each request, with 0 where the recipe has none of it: what is left out may keep the scale that the server has
for everybody, and an empty list changes nothing. These scales for everybody are never touched. Requests of two sets of
scales never share a batch. It tells no likelihoods of a given text.

Source: tools/server/README.md of llama.cpp (`/completion`, `/v1/chat/completions`, `/lora-adapters`, `/props`).
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import PurePath
from typing import Any

from evomerge.backends.services.asked import answered, completed, first, listed, mapped, turns
from evomerge.backends.services.dialect import Ask, refused_parameters, weights_of
from evomerge.backends.services.line import Line
from evomerge.backends.services.offer import Held, Offer
from evomerge.errors import ConfigError
from evomerge.exchange import Answer, Generate, Request, Sampling
from evomerge.recipe.served import ServedMerge

NO_LIKELIHOODS = (
    "llama.cpp's server tells no likelihood of a given text; score by a generated answer (exact, numeric, contains, "
    "regex, f1)"
)
_UNLIKE = "it does not tell its model and adapters as llama.cpp does"


class LlamaCpp:
    """A llama.cpp server at the end of a line."""

    title = "llama.cpp"

    def __init__(self, line: Line) -> None:
        self._line = line

    async def offer(self) -> Offer:
        """Return the model and the loaded adapters, which are called by their files' names or by their numbers."""
        path = str(mapped(await self._line.tell("/props"), _UNLIKE).get("model_path") or "")
        model = first(mapped(await self._line.tell("/v1/models"), _UNLIKE).get("data"))
        loaded = listed(await self._line.tell("/lora-adapters"), _UNLIKE)
        files = [PurePath(str(one.get("path", ""))) for one in loaded]
        stems = [file.stem for file in files]
        adapters = tuple(
            Held(
                id=file.stem if stems.count(file.stem) == 1 else str(one.get("id")),
                mark=str(file),
                handle=str(one.get("id")),
                names=(str(one.get("id")), file.name, str(file)),
            )
            for file, one in zip(files, loaded, strict=True)
        )
        meta = mapped(model.get("meta") or {}, _UNLIKE)
        mark = f"{path} {meta.get('size')} {meta.get('n_params')}"
        return Offer(PurePath(path).name or str(model.get("id")), mark, adapters)

    def refusal(self, recipe: ServedMerge, offer: Offer) -> str | None:  # noqa: ARG002  # the contract's arguments
        """Only sums can be had."""
        return refused_parameters(recipe, self.title, {"linear"}, own_density=False)

    async def trial(self, recipe: ServedMerge, offer: Offer) -> str | None:  # noqa: ARG002  # the contract's arguments
        """Nothing is left to try out."""
        return None

    def manner(self, recipe: ServedMerge) -> str:
        """The exact sum."""
        return f"the exact sum of {len(recipe.inputs)} adapters, whose scales go with every request"

    @asynccontextmanager
    async def hold(self, recipe: ServedMerge, offer: Offer) -> AsyncGenerator[Ask]:
        """Hold a merge: nothing is given to the server for it."""
        scales = dict.fromkeys((one.handle for one in offer.adapters or ()), 0.0)
        for adapter, weight in zip(recipe.ids, weights_of(recipe), strict=True):
            scales[offer.handle(adapter)] = weight
        yield partial(self._ask, [{"id": int(handle), "scale": scale} for handle, scale in scales.items()])

    async def clear(self) -> None:
        """Nothing is ever left at the server."""

    async def _ask(self, scales: list[dict[str, float]], request: Request) -> Answer:
        if not isinstance(request, Generate):
            raise ConfigError(NO_LIKELIHOODS)
        sampling, messages = request.sampling, turns(request.prompt)
        body = {**_sampled(sampling), "lora": scales}
        if messages is not None:
            body |= {"messages": messages, "max_tokens": sampling.max_tokens}
            return await self._line.ask("/v1/chat/completions", body, partial(completed, sampling=sampling))
        body |= {"prompt": request.prompt, "n_predict": sampling.max_tokens}
        return await self._line.ask("/completion", body, partial(_completed, sampling=sampling))


def _sampled(sampling: Sampling) -> dict[str, Any]:
    """Return the keys that decide how an answer is drawn, so that the server's own defaults decide nothing."""
    keys: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "stop": [stop for stop in sampling.stop if stop],
        "cache_prompt": False,
        "stream": False,
    }
    return keys if sampling.seed is None else {**keys, "seed": sampling.seed}


def _completed(reply: Mapping[str, Any], sampling: Sampling) -> Answer:
    """Return the answer of `/completion`. Raises Malformed."""
    limited = reply.get("stop_type") == "limit" or bool(reply.get("truncated"))
    read, written = reply.get("tokens_evaluated"), reply.get("tokens_predicted")
    return answered(reply.get("content"), sampling, limited=limited, read=read, written=written)
