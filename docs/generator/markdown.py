"""How sections are written: tables, code, anchors, and text on one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; what would end a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def one_line(text: str | None) -> str:
    """The text on one line."""
    return " ".join((text or "").split())


def first_sentence(text: str | None) -> str:
    """The first sentence, without its full stop."""
    return one_line(text).partition(". ")[0].rstrip(".")


def code(value: object) -> str:
    """As code."""
    return f"`{value}`"


def anchor(heading: str) -> str:
    """The anchor that a heading gets on GitHub."""
    kept = "".join(letter for letter in heading.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")
