"""The scorer `numeric`: the answer's number is the reference's number.

A number is written with digits, optionally with commas between thousands, a decimal point and an exponent (`1,234.5`,
`-3`, `1e3`), or as a fraction of two whole numbers (`3/4`). A minus after a letter or digit is a dash (`7-3` holds 7
and 3), a sign of currency or per cent is ignored, and a decimal comma is not read. Numbers are compared exactly, as
decimals.
"""

import re
from decimal import Context, Decimal
from pathlib import Path
from typing import Literal

from pydantic import Field

from evomerge.recipe.settings import Settings
from evomerge.tasks.scorers.protocol import Question, TextScorer
from evomerge.tasks.scorers.registry import scorer

_NUMBER = re.compile(
    r"""
    (?P<sign> (?<![\w.)]) [-+\u2212] (?=[$€£]?[.0-9]) )?  [$€£]?
    (?:
        (?<![0-9/]) (?<![0-9]\.) (?P<top>[0-9]+) / (?P<bottom>[0-9]+) (?![0-9/]|\.[0-9])    # not a part of a date
      | (?P<plain>
            (?: (?<![0-9]) [0-9]{1,3} (?:,[0-9]{3})+ (?![0-9]) | [0-9]+ | (?<!\w)(?=\.[0-9]) )
            (?: \.[0-9]+ )?
            (?: [eE][-+]?[0-9]{1,4} (?![0-9]) )?
        )
    )
    """,
    re.VERBOSE,
)
_ARITHMETIC = Context(prec=50, traps=[])


class NumericOptions(Settings):
    """1 when the number in the answer is the reference's number, else 0. An answer without a number is wrong."""

    tolerance: float = Field(default=1e-6, ge=0)
    """Largest absolute difference at which two numbers still count as the same."""
    take: Literal["last", "first"] = "last"
    """Which number of the answer counts: the last (the result after some steps) or the first."""


@scorer("numeric", options=NumericOptions)
class Numeric(TextScorer):
    """The answer's number is the reference's number."""

    def __init__(self, options: NumericOptions, root: Path) -> None:
        super().__init__(options, root)
        self.options = options
        self.tolerance = Decimal(repr(options.tolerance))

    def problem(self, question: Question) -> str | None:
        """Refuse a reference without a number."""
        without = next((text for text in question.references if self.number(text) is None), None)
        return None if without is None else f"the reference {without!r} holds no number"

    def compare(self, text: str, reference: str) -> float:
        """Return 1 when both numbers agree within the tolerance, else 0."""
        ours, theirs = self.number(text), self.number(reference)
        if ours is None or theirs is None:
            return 0.0
        return float(ours == theirs or _ARITHMETIC.abs(_ARITHMETIC.subtract(ours, theirs)) <= self.tolerance)

    def key(self, text: str) -> str:
        """Return the number in one way of writing it (`1,000` and `1e3` agree); empty where there is none."""
        number = self.number(text)
        if number is None:
            return ""
        return str(_ARITHMETIC.normalize(number)) if number else "0"

    def number(self, text: str) -> Decimal | None:
        """Return the number that counts in a text, or None."""
        found = list(_NUMBER.finditer(text))
        return _value(found[-1 if self.options.take == "last" else 0]) if found else None


def _value(match: re.Match[str]) -> Decimal:
    if match["top"] is not None:
        top, bottom = Decimal(match["top"]), Decimal(match["bottom"])
        value = _ARITHMETIC.divide(top, bottom) if bottom else bottom
    else:
        value = Decimal(match["plain"].replace(",", ""))
    return value.copy_negate() if match["sign"] in {"-", "\u2212"} else value
