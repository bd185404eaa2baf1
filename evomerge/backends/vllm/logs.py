"""What the log of a vLLM server says, in words for a person: how far a start has come, and why one failed.

Read are lines that several of its processes print at once, with exceptions of Python among them. What is not
understood is given as it stands; nothing here decides what is done about it, except by saying whether the next start
would end alike.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 400

STAGES = (
    ("Resolved architecture", "it knows the model"),
    ("Starting to load model", "it loads the weights"),
    ("Loading weights took", "it has the weights"),
    ("Dynamo bytecode transform", "it compiles the model"),
    ("Capturing CUDA graphs", "it captures graphs"),
    ("KV cache size", "it has made room for the cache"),
)

_WHO = re.compile(r"^\(\w[^()]* pid=\d+\)\s*")
_WHEN = re.compile(r"^(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d [\d:]+ \[[^\]]*\]\s?")
_RAISED = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt): (?P<said>\S.*)$")
_VALUE = re.compile(r"^\s+(?:Value|Assertion) error, (?P<said>\S.*)$")
_USAGE = re.compile(r"^[\w.-]+(?: \w+)?: error: (?P<said>\S.*)$")
_PYTHON = re.compile(r"^\S*python[\d.]*: (?P<said>(?:No module named|can't open|Error while).*)$")
_ECHO = re.compile(r"root cause|failed core proc|background process|validation errors? for", re.IGNORECASE)
_TAIL = re.compile(r"\s*\[type=\w+, input_value=.*$")


@dataclass(frozen=True)
class Reason:
    """Why a start failed: a sentence, and whether another one would fail alike."""

    sentence: str
    permanent: bool


class Progress:
    """How far a start has come; each stage is told once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def new(self, said: str) -> Iterator[str]:
        """Yield what has been reached since the last time, from all that was printed."""
        for sign, word in STAGES:
            if word not in self._told and sign in said:
                self._told.add(word)
                yield word


def reason(said: str, code: int) -> Reason:
    """Return why a server ended before it was well, from what it printed and its exit code (128 + a signal's number).

    The last exception that only points at another one is passed over. What vLLM makes of its arguments and of the model
    is permanent; memory that is short, a port that is taken and everything unknown is not.
    """
    lines = [_WHEN.sub("", _WHO.sub("", line)).rstrip() for line in said.splitlines()]
    for line in reversed(lines):
        if _ECHO.search(line):
            continue
        for pattern, permanent in ((_VALUE, True), (_USAGE, True), (_PYTHON, True), (_RAISED, False)):
            if found := pattern.match(line):
                return Reason(_short(_TAIL.sub("", found["said"])), permanent)
    if code > 128:
        return Reason(f"it was ended by signal {code - 128}", permanent=False)
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
    return Reason(_short(f"it ended with exit code {code}, and last printed: {last}"), permanent=False)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
