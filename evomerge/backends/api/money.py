"""Amounts of money and tokens, and budgets of them. Pure.

Money is counted in whole picodollars, so that sums of very small prices are exact: a token at one cent for a million of
them is ten thousand.
"""

import math
from dataclasses import dataclass
from typing import Literal

PICO = 10**12
"""Picodollars in a dollar."""

Part = Literal["usd", "tokens"]
"""The parts of a budget that requests use up."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Tokens and picodollars."""

    tokens: int = 0
    picousd: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens + other.tokens, self.picousd + other.picousd)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens - other.tokens, self.picousd - other.picousd)

    def __mul__(self, factor: float) -> "Amount":
        return Amount(math.ceil(self.tokens * factor), math.ceil(self.picousd * factor))

    @property
    def usd(self) -> float:
        """The money in USD."""
        return self.picousd / PICO

    def said(self, part: Part) -> str:
        """Say one part of it to people."""
        return dollars(self.usd) if part == "usd" else f"{self.tokens:,} tokens"


def amount(tokens: float, usd: float) -> Amount:
    """Return an amount of tokens and USD, rounded up."""
    return Amount(math.ceil(tokens), math.ceil(usd * PICO))


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be spent; None is not limited."""

    usd: float | None = None
    tokens: int | None = None

    def lacks(self, wanted: Amount) -> Part | None:
        """Return which part of the budget does not cover an amount, or None where both do."""
        if self.usd is not None and wanted.picousd > round(self.usd * PICO):
            return "usd"
        if self.tokens is not None and wanted.tokens > self.tokens:
            return "tokens"
        return None

    def said(self, part: Part) -> str:
        """Say one part of it to people."""
        return dollars(self.usd or 0.0) if part == "usd" else f"{self.tokens or 0:,} tokens"


def dollars(usd: float) -> str:
    """Write money: in cents, or with as many digits as a small amount needs."""
    return f"{usd:,.2f} USD" if usd >= 1 or usd == 0 else f"{usd:.2g} USD"
