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
    """How an answer is generated. Temperature 0 is greedy; `stop` strings end an answer and are not part of it."""

    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Generate:
    """Ask for a text that continues the prompt."""

    prompt: Prompt
    sampling: Sampling = field(default_factory=Sampling)


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
    """Tokens read and tokens written for one request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


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
    """

    text: str | None = None
    likelihoods: tuple[Likelihood, ...] = ()
    finish: Literal["stop", "length"] = "stop"
    usage: Usage = Usage()
    failure: Failure | None = None
