"""Questions and answers as vLLM's completions have them: token ids in, token ids out. Pure.

Prompts are tokenised here and answers decoded here, as the embedded backend does it, so that a recipe's scores do not
depend on who holds it. A prompt with a continuation to be judged is read whole, and nothing of what follows is used.
"""

import json
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from evomerge.backends.text import Split, Text
from evomerge.errors import BackendError, CandidateError
from evomerge.exchange import Answer, Failure, Generate, Judge, Likelihood, Usage


@dataclass(frozen=True, slots=True)
class Speaker:
    """What has to be known to ask a model: its tokenizer, the tokens that end an answer, its longest sequence."""

    text: Text
    ends: AbstractSet[int]
    positions: int | None

    @classmethod
    def of(cls, folder: Path, positions: int | None) -> "Speaker":
        """Read the tokenizer and generation configuration of a folder. Raises SourceError where there is none."""
        text = Text(folder)
        found = _ends(folder)
        return cls(text, found if text.end is None else found | {text.end}, positions)

    def refusal(self, request: Generate | Judge) -> Answer | None:
        """Return the answer to a request that no server has to be asked."""
        if isinstance(request, Judge):
            splits = self.splits(request)
            if any(split.start == 0 and split.ids for split in splits):
                return _failed("prompt", "nothing stands before the continuation; give the task a prompt")
            longest = max((len(split.ids) for split in splits), default=0)
            return self._too_long("prompt and continuation", longest)
        prompt = self.text.prompt(request.prompt)
        if not prompt:
            return _failed("prompt", "the prompt has no tokens; give the task a prompt")
        if (answer := self._too_long("the prompt", len(prompt))) is not None:
            return answer
        if request.sampling.max_tokens < 1:
            return Answer(text="", finish="length", usage=Usage(len(prompt), 0))
        return None

    def splits(self, request: Judge) -> list[Split]:
        """Return prompt and continuation of everything that is to be judged."""
        return [self.text.split(request.prompt, continuation) for continuation in request.continuations]

    def generating(self, request: Generate) -> dict[str, Any]:
        """Return the body that asks for a text; `model` is the caller's to add."""
        prompt, sampling = self.text.prompt(request.prompt), request.sampling
        room = sampling.max_tokens if self.positions is None else self.positions - len(prompt)
        body: dict[str, Any] = {
            "prompt": list(prompt),
            "max_tokens": min(sampling.max_tokens, room),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop_token_ids": sorted(self.ends),
            "return_token_ids": True,
        }
        if sampling.stop:
            body["stop"] = [stop for stop in sampling.stop if stop]
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.choices:
            body["structured_outputs"] = {"choice": list(sampling.choices)}
        elif sampling.schema is not None:
            body["structured_outputs"] = {"json": sampling.schema}
        return body

    def generated(self, request: Generate, reply: Mapping[str, Any]) -> Answer:
        """Return the answer that a reply holds. Raises BackendError for one that holds none."""
        choice = _choice(reply)
        written: Any = choice.get("token_ids")
        if choice.get("finish_reason") not in ("stop", "length") or not isinstance(written, list):
            raise BackendError("vLLM gave an answer up, or sent no token ids; it needs a version of 0.11 or later")
        tokens = cast("list[int]", written)
        ended = bool(tokens) and tokens[-1] in self.ends
        said = self.text.decode(tokens[:-1] if ended else tokens)
        stops = [place for stop in request.sampling.stop if stop and (place := said.find(stop)) >= 0]
        return Answer(
            text=said[: min(stops)] if stops else said,
            finish="stop" if ended or stops or choice["finish_reason"] == "stop" else "length",
            usage=Usage(len(self.text.prompt(request.prompt)), len(tokens)),
        )

    def judging(self, split: Split) -> dict[str, Any]:
        """Return the body that asks how likely each token of a prompt was; the one token that follows is not used."""
        return {"prompt": list(split.ids), "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}

    def judged(self, split: Split, reply: Mapping[str, Any]) -> Likelihood:
        """Return the likelihood of a continuation, summed in float64. Raises CandidateError where it is no number."""
        found: Any = _choice(reply).get("prompt_logprobs")
        if not isinstance(found, list) or len(cast("list[Any]", found)) != len(split.ids):
            raise BackendError("vLLM sent no log-probabilities of the prompt")
        given = cast("list[Mapping[str, Mapping[str, float]]]", found)
        total = math.fsum(
            given[place][str(token)]["logprob"] for place, token in enumerate(split.ids) if place >= split.start
        )
        if not math.isfinite(total):
            raise CandidateError("the model's likelihoods are not finite numbers: the recipe's weights are too large")
        return Likelihood(total, len(split.ids) - split.start)

    def _too_long(self, what: str, tokens: int) -> Answer | None:
        if self.positions is None or tokens < self.positions:
            return None
        return _failed(
            "context", f"{what} takes {tokens} tokens, where the server reads {self.positions - 1} and writes one"
        )


def _failed(kind: str, message: str) -> Answer:
    return Answer(failure=Failure(kind, message))


def _choice(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    choices: Any = reply.get("choices")
    if not isinstance(choices, Sequence) or not choices:
        raise BackendError("vLLM sent an answer without choices")
    return cast("Sequence[Mapping[str, Any]]", choices)[0]


def _ends(folder: Path) -> frozenset[int]:
    """Return the tokens that end an answer, as the generation configuration or else the configuration has them."""
    for name in ("generation_config.json", "config.json"):
        try:
            found: Any = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        inner = cast("Mapping[str, Any]", found.get("text_config") or {})
        ends = found.get("eos_token_id", inner.get("eos_token_id"))
        if ends is not None:
            return frozenset([ends] if isinstance(ends, int) else cast("list[int]", ends))
    return frozenset()
