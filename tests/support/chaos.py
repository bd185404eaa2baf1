"""Faults at random, from a seed: for a server that answers most of the time, and else fails in every way of servers.

Whether and how a request fails depends on the seed, its prompt and how often that was asked before, not on what else is
asked at the time. `served` counts what was done, by kind of fault.
"""

import hashlib
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from email.utils import formatdate

from tests.support.endpoint import Answer, Reply, chat, usage

RIGHT = "right"
Fault = Callable[[str], Reply]


def _refusal(status: int, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"error": {"message": f"chaos {status}"}}, named)


def _garbled(text: str) -> Reply:
    """A truncated body that is announced as long as it is: the model has worked for it."""
    told = usage(text)
    return Reply(body=json.dumps(chat(text).body).encode()[:-20], bills=(told["prompt_tokens"], len(text)))


FAULTS: dict[str, Fault] = {
    "429": lambda _: _refusal(429),
    "429 told": lambda _: _refusal(429, retry_after_ms="3"),
    "429 dated": lambda _: _refusal(429, Retry_After=formatdate(0, usegmt=True)),
    "500": lambda _: _refusal(500),
    "503": lambda _: _refusal(503),
    "closed": lambda _: Reply(reset=True),
    "cut": lambda text: Reply(body=chat(text).body, promised=50),
    "garbled": _garbled,
    "hang": lambda _: Reply(hang=True),
    "late": lambda text: Reply(body=chat(text).body, late=True),
}
"""What a server may do instead of answering a text; "cut", "garbled" and "late" are billed, the others are not."""


class Chaos:
    """Answers as `answer` does, but for a `share` of the requests, of each prompt at most `most` times."""

    def __init__(
        self, answer: Answer, seed: int, *, share: float = 0.3, most: int = 4, kinds: Sequence[str] = tuple(FAULTS)
    ) -> None:
        self.answer, self.seed, self.share, self.most, self.kinds = answer, seed, share, most, kinds
        self.served: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, prompt: str) -> Reply | str:
        right = self.answer(prompt)
        with self._lock:
            self._asked[prompt] += 1
            drawn = hashlib.sha256(f"{self.seed} {self._asked[prompt]} {prompt}".encode()).digest()
            dice = random.Random(drawn)
            fails = dice.random() < self.share and self._failed[prompt] < self.most and isinstance(right, str)
            kind = dice.choice(self.kinds) if fails else RIGHT
            self._failed[prompt] += fails
            self.served[kind] += 1
        return FAULTS[kind](str(right)) if kind != RIGHT else right
