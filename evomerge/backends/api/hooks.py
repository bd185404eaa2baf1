"""What a client of an endpoint asks before and after it sends: whether the answer is known, and whether it may be paid.

Two protocols, so that the client knows nothing of how answers are kept and money is counted; and for each the simplest
thing that keeps it: nothing is known, and everything may be paid.
"""

from typing import Protocol

from evomerge.exchange import Answer, Request, Usage


class Answers(Protocol):
    """Answers that were paid for once. `endpoint` is the fingerprint of an endpoint's settings."""

    def get(self, endpoint: str, request: Request) -> Answer | None:
        """Return the answer that is kept, marked `cached`, or None. Never a failure."""
        ...

    def put(self, endpoint: str, request: Request, answer: Answer) -> None:
        """Keep an answer. It is given none that failed, and none that it gave itself."""
        ...

    def close(self) -> None:
        """Let go of files and of whatever is held. Calling it twice is harmless."""
        ...


class Purse(Protocol):
    """The money and tokens of a study. `endpoint` is the fingerprint of an endpoint's settings."""

    async def reserve(self, endpoint: str, most_tokens: tuple[int, int], most_usd: float) -> int:
        """Set aside what one attempt may cost at most, and return a ticket once that is durable.

        `most_tokens` are those read and those written. Raises BudgetSpent where spent and reserved would pass the
        budget; then nothing is set aside.
        """
        ...

    def settle(self, ticket: int, usage: Usage | None, usd: float | None) -> None:
        """Replace a reservation by what the attempt cost. None is unknown: what was reserved counts as spent.

        Every ticket is settled once, except those of a process that was killed.
        """
        ...

    def close(self) -> None:
        """Write down what is not yet, and let go of files. Calling it twice is harmless."""
        ...


class NoAnswers:
    """Nothing is known and nothing is kept."""

    def get(self, endpoint: str, request: Request) -> Answer | None:  # noqa: ARG002
        """Return None."""
        return None

    def put(self, endpoint: str, request: Request, answer: Answer) -> None:
        """Keep nothing."""

    def close(self) -> None:
        """Hold nothing."""


class NoPurse:
    """Everything may be paid, and nothing is counted."""

    async def reserve(self, endpoint: str, most_tokens: tuple[int, int], most_usd: float) -> int:  # noqa: ARG002
        """Return a ticket that means nothing."""
        return 0

    def settle(self, ticket: int, usage: Usage | None, usd: float | None) -> None:
        """Count nothing."""

    def close(self) -> None:
        """Hold nothing."""
