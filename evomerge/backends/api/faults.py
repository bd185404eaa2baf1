"""What can become of a request, and what an error of HTTP means for it.

Fault
├── Refused        this request will never be answered: it is missing
├── Misplaced      nothing at this address will ever be: a person must correct the job
├── Barred         no key, no right, no quota: a person must act, and the endpoint is left alone
├── Down           no attempt was answered for long: the endpoint is left alone
└── Transient      worth another attempt, after `retry_after` seconds where the server named a time
    ├── Away       nobody is there, or is too busy: more about the endpoint than about the request
    ├── Malformed  an answer that cannot be read: at most two more attempts
    └── TimedOut   no whole answer in time, which may have cost what an answer costs
"""

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

MOST_SECONDS = 60.0
"""A server that asks for a longer pause than this is asked again after this."""

_AGAIN = frozenset({408, 409, 425, 429})
_MISPLACED = frozenset({404, 405, 410})
_BARRED = frozenset({401, 402, 403})
_AWAY = frozenset({502, 503, 529})
_PERHAPS_BILLED = frozenset({502, 504, 522, 524})
"""A gateway gave up, and the server behind it may have gone on."""
_QUOTA = ("insufficient_quota", "quota", "billing", "credit balance")
_UNPAID = ("billing", "credit balance")
"""How a refusal with another status says that the account is empty."""
_RATE = ("per second", "per minute", "rate limit", "rate_limit")
"""A quota of so many requests a minute is waited for; one of money is not."""


class Fault(Exception):
    """A request that was not answered; the message is a sentence without the endpoint's name.

    `free` says that it surely was not billed.
    """

    def __init__(self, sentence: str, *, free: bool = False) -> None:
        super().__init__(sentence)
        self.free = free


class Refused(Fault):
    """The server refuses this request for good."""


class Misplaced(Fault):
    """The address or the model's name is wrong."""


class Barred(Fault):
    """The key is missing, wrong or exhausted."""


class Down(Fault):
    """Attempt after attempt had no answer, over minutes."""


class Transient(Fault):
    """Another attempt may be answered."""

    def __init__(self, sentence: str, retry_after: float | None = None, *, free: bool = False) -> None:
        super().__init__(sentence, free=free)
        self.retry_after = retry_after


class Away(Transient):
    """Nobody is there, or whoever is there is too busy."""


class Malformed(Transient):
    """The answer is not what the dialect says."""


class TimedOut(Transient):
    """There was no whole answer in time."""


def fault_of(status: int, headers: Mapping[str, str], complaint: str, now: float) -> Fault:
    """Return what a reply that is no success means.

    `headers` have small letters, `complaint` is the server's own message, `now` the time in seconds since 1970. A reply
    that says no was not billed, but for those of a gateway that gave up waiting.
    """
    said = f"it answered {status}" + (f": {complaint}" if complaint else "")
    if status in _BARRED or _is_unpaid(status, complaint.lower()):
        return Barred(said, free=True)
    if status in _MISPLACED or 300 <= status < 400:
        return Misplaced(said, free=True)
    if status in _AGAIN or status >= 500:
        kind = Away if status in _AWAY else Transient
        return kind(said, retry_after(headers, now), free=status not in _PERHAPS_BILLED)
    return Refused(said, free=True)


def _is_unpaid(status: int, complaint: str) -> bool:
    """Return whether a reply speaks of money rather than of the rate of requests."""
    if status == 429:
        return any(word in complaint for word in _QUOTA) and not any(word in complaint for word in _RATE)
    return status == 400 and any(word in complaint for word in _UNPAID)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that a reply asks to wait (Retry-After in seconds or as a date, retry-after-ms), capped."""
    seconds = _number(headers.get("retry-after-ms"), 0.001)
    if seconds is None:
        seconds = _number(headers.get("retry-after"), 1.0)
    if seconds is None and "retry-after" in headers:
        try:
            seconds = parsedate_to_datetime(headers["retry-after"]).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return None
    return None if seconds is None else min(max(seconds, 0.0), MOST_SECONDS)


def _number(text: str | None, unit: float) -> float | None:
    try:
        number = float(text or "") * unit
    except ValueError:
        return None
    return number if math.isfinite(number) else None
