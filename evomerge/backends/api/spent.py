"""What a ledger tells, read without disturbing who writes it."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evomerge.backends.api.ledger import unreadable
from evomerge.backends.api.money import PICO, Budget

_SUMS = """
SELECT outcome, count(*), sum(prompt_tokens), sum(completion_tokens), sum(reasoning_tokens),
       sum(coalesce(tokens, most_tokens)), sum(coalesce(picousd, most_picousd))
FROM attempts GROUP BY outcome
"""
_BY_ENDPOINT = """
SELECT coalesce(name, endpoint), sum(picousd) FROM attempts
LEFT JOIN endpoints ON fingerprint = endpoint WHERE outcome IS NOT NULL GROUP BY 1 ORDER BY min(ticket)
"""


@dataclass(frozen=True, slots=True)
class Sum:
    """What attempts to be answered have cost together; `tokens` are those that count, read and written."""

    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    tokens: int = 0
    usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Spent:
    """What requests of a study have cost.

    `settled` attempts cost what their replies say; `unknown` ones had no whole answer and may have been billed, `lost`
    ones were under way when a process ended: both count with what was set aside for them. `under_way` is set aside
    still; `free` attempts were billed nothing. `endpoints` is the money by endpoint.
    """

    settled: Sum = Sum()
    unknown: Sum = Sum()
    lost: Sum = Sum()
    under_way: Sum = Sum()
    free: int = 0
    budget: Budget = Budget()
    endpoints: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def usd(self) -> float:
        """Money that was spent, or may have been, in USD."""
        return self.settled.usd + self.unknown.usd + self.lost.usd

    @property
    def tokens(self) -> int:
        """Tokens that were spent, or may have been."""
        return self.settled.tokens + self.unknown.tokens + self.lost.tokens

    @property
    def attempts(self) -> int:
        """How often something was sent in all."""
        return sum(one.attempts for one in (self.settled, self.unknown, self.lost, self.under_way)) + self.free

    @property
    def left(self) -> tuple[float | None, int | None]:
        """What the budget still holds, in USD and in tokens; None is not limited."""
        usd, tokens = self.budget.usd, self.budget.tokens
        return (
            None if usd is None else max(usd - self.usd - self.under_way.usd, 0.0),
            None if tokens is None else max(tokens - self.tokens - self.under_way.tokens, 0),
        )

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        usd, tokens = self.left
        return {
            "usd": round(self.usd, 12),
            "tokens": self.tokens,
            "attempts": self.attempts,
            "prompt_tokens": self.settled.prompt_tokens,
            "completion_tokens": self.settled.completion_tokens,
            "reasoning_tokens": self.settled.reasoning_tokens,
            "unanswered": _plain(self.unknown),
            "lost": _plain(self.lost),
            "reserved": _plain(self.under_way),
            "budget": {"usd": self.budget.usd, "tokens": self.budget.tokens},
            "left": {"usd": None if usd is None else round(usd, 12), "tokens": tokens},
            "endpoints": {name: round(usd, 12) for name, usd in self.endpoints.items()},
        }


def read_ledger(path: Path) -> Spent | None:
    """Return what a ledger tells, or None where there is none. Raises StudyBroken for a broken one."""
    if not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=10, uri=True)) as db:
            facts: dict[str, Any] = dict(db.execute("SELECT key, value FROM facts").fetchall())
            sums = {row[0]: Sum(*(n or 0 for n in row[1:6]), row[6] / PICO) for row in db.execute(_SUMS)}
            endpoints = {name: picousd / PICO for name, picousd in db.execute(_BY_ENDPOINT)}
    except sqlite3.Error as error:
        raise unreadable(path, error) from error
    return Spent(
        settled=sums.get("settled", Sum()),
        unknown=sums.get("unknown", Sum()),
        lost=sums.get("lost", Sum()),
        under_way=sums.get(None, Sum()),
        free=sums.get("free", Sum()).attempts,
        budget=Budget(facts.get("usd"), facts.get("tokens")),
        endpoints=endpoints,
    )


def _plain(one: Sum) -> dict[str, Any]:
    return {"attempts": one.attempts, "usd": round(one.usd, 12), "tokens": one.tokens}
