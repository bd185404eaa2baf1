"""Requests and answers: the only things that cross between tasks and backends.

A request says what a model is asked; an answer says what came back, or why nothing did. Both are frozen values without
behaviour, so that a backend needs to know nothing of tasks and a task nothing of engines.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


Prompt = str | tuple[Message, ...]
"""Plain text goes to the model as it is; messages go through the model's own chat template."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is generated. Temperature 0 is greedy; `stop` strings end an answer and are not part of it.

    `choices` are the only texts that the answer may be, and `schema` is the JSON schema (as JSON) that it must fit,
    where the model can be held to that; at most one of the two is given.
    """

    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    choices: tuple[str, ...] = ()
    schema: str | None = None


@dataclass(frozen=True, slots=True)
class Generate:
    """Ask for a text that continues the prompt.

    `sample` counts independent answers to the same question from 0: each has dice of its own. `logprobs` wants the mean
    log-probability of the answer's tokens with it, where that can be told.
    """

    prompt: Prompt
    sampling: Sampling = field(default_factory=Sampling)
    sample: int = 0
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Judge:
    """Ask how likely each continuation is after the prompt; nothing is generated."""

    prompt: Prompt
    continuations: tuple[str, ...]


Request = Generate | Judge


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Log-probability (nats) of one continuation given its prompt, summed over its `tokens` tokens."""

    logprob: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and tokens written for one request; `reasoning_tokens` are those written that nobody sees."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer. A failed request is missing: it never counts as a wrong answer."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request.

    `text` belongs to a `Generate`, `likelihoods` (one for each continuation, in their order) to a `Judge`. An empty
    text, or one cut at `max_tokens` (`finish == "length"`), is an answer; only `failure` means that there is none.

    `logprob` is the mean log-probability (nats) of the tokens of `text`, None where it was not wanted or is not told.
    `usd` is what this answer cost, 0 where that is unknown. `seconds` passed from sending to the whole answer, in the
    attempt that was answered; a `cached` answer, which was not asked for again, keeps those of the original and costs
    nothing. `model` is the model and the fingerprint that the reply names.
    """

    text: str | None = None
    likelihoods: tuple[Likelihood, ...] = ()
    finish: Literal["stop", "length"] = "stop"
    usage: Usage = Usage()
    failure: Failure | None = None
    logprob: float | None = None
    usd: float = 0.0
    seconds: float = 0.0
    model: str = ""
    cached: bool = False
