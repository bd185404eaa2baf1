"""What stands behind the front: whoever answers a question, and what is told of how the answer came about."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from evomerge.exchange import Prompt, Sampling, Usage


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks. `metadata` is the client's own: words that may say what task or category it is about."""

    prompt: Prompt
    sampling: Sampling
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Asked:
    """One member that was asked for a question: what it used, or the kind of `failure` for which it has no answer."""

    name: str
    usage: Usage = field(default_factory=Usage)
    usd: float = 0.0
    seconds: float = 0.0
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Combined:
    """The answer to a question, and who had a part in it. `answer_of` is the member whose reply was taken."""

    text: str
    finish: Literal["stop", "length"] = "stop"
    asked: tuple[Asked, ...] = ()
    answer_of: str | None = None

    @property
    def usage(self) -> Usage:
        """The tokens of all members that were asked."""
        read = sum(one.usage.prompt_tokens for one in self.asked)
        return Usage(read, sum(one.usage.completion_tokens for one in self.asked))

    @property
    def usd(self) -> float:
        """What all members that were asked cost, as far as their prices are known."""
        return sum(one.usd for one in self.asked)

    @property
    def answered(self) -> tuple[str, ...]:
        """The members that answered."""
        return tuple(one.name for one in self.asked if one.failure is None)

    @property
    def missing(self) -> tuple[str, ...]:
        """The members that were asked and did not answer."""
        return tuple(one.name for one in self.asked if one.failure is not None)


class Unanswered(Exception):
    """Nobody answered; the message is a sentence for the client, `asked` says who was asked in vain."""

    def __init__(self, message: str, asked: tuple[Asked, ...] = ()) -> None:
        super().__init__(message)
        self.asked = asked


class Unanswerable(Exception):
    """The question cannot be answered as it is asked; the message is a sentence for the client."""


class Answering(Protocol):
    """Whoever answers questions."""

    summary: str
    """In words, for a person who starts the server."""
    fingerprint: str
    """What the answers depend on: the id of the recipe."""
    members: tuple[str, ...]
    """The names of those who are asked."""
    default: Sampling
    """How answers are generated where a client does not say."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Be ready to answer while inside."""
        ...

    async def answer(self, question: Question) -> Combined:
        """Return the answer. Raises Unanswered, and Unanswerable. Cancelling it cancels what is asked."""
        ...
