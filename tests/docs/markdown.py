"""Reads the repository's Markdown pages: fenced code blocks with what stands above them for this test, links, headings.

A comment `<!-- test: WORD ARGUMENTS -->` above a block says how it is tried; readers do not see it. The words:

    skip REASON        not run, because of that
    file NAME          written to this file of the working folder
    job NAME           keys of a job: with them in place of its own, the job in this file must still fit together
    small NAME TRIALS  the job in this file gets few items and that many trials (once it is there)
    replace OLD NEW    this word is another in the test
    served URL FILE    this address is a server on loopback, with a model that knows most answers of a data file
    instead COMMAND    run in place of what stands there
    interrupt          the command is sent SIGINT at its first trial, and must say that nothing is lost
    exit NUMBER        the exit code to expect, if not 0
    output             a text block that shows what the block before it prints
    varies PATTERN     lines of a shown output that the few trials of a test may change
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])
PAGES = tuple(path.relative_to(REPOSITORY).as_posix() for path in FILES)

_DIRECTIVE = re.compile(r"<!-- test: (\w+) ?(.*?) -->")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.*?) *$")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it opens, its language, its text, and the directives above it (word, arguments)."""

    page: str
    line: int
    language: str
    text: str
    directives: tuple[tuple[str, str], ...] = field(default=())

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def said(self, word: str) -> list[str]:
        """The arguments of every directive of that word."""
        return [arguments for name, arguments in self.directives if name == word]


def blocks(page: str, text: str) -> list[Block]:
    """The fenced blocks of a page, in order. Directives belong to the next block, over blank lines."""
    found: list[Block] = []
    waiting: list[tuple[str, str]] = []
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        if match := _DIRECTIVE.fullmatch(line.strip()):
            waiting.append((match[1], match[2]))
        elif line.startswith("```"):
            fence = re.match("`+", line)
            closing = fence.group() if fence else "```"
            inside: list[str] = []
            for _, inner in lines:
                if inner.rstrip() == closing:
                    break
                inside.append(inner)
            else:
                raise ValueError(f"{page}:{number}: this block is never closed")
            found.append(Block(page, number, line.strip("` "), "\n".join(inside) + "\n", tuple(waiting)))
            waiting = []
        elif line.strip() and waiting:
            raise ValueError(f"{page}:{number}: a directive for a test stands above something that is no code block")
    return found


def prose(text: str) -> str:
    """A page without its fenced blocks and code spans."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^(`{3,}).*?^\1 *$", "", text, flags=re.MULTILINE | re.DOTALL))


def links(text: str) -> list[str]:
    """The targets of a page's links and images."""
    return _LINK.findall(prose(text))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    without_code = re.sub(r"^(`{3,}).*?^\1 *$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = [match[1] for line in without_code.splitlines() if (match := _HEADING.match(line))]
    return {
        "".join(letter for letter in heading.lower() if letter.isalnum() or letter in " -_").replace(" ", "-")
        for heading in headings
    }
