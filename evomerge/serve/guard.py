"""Who may ask, and how much: keys, requests a minute for each key, requests under way for all.

Nothing here waits: whoever asks too much is told so, with the time after which asking again makes sense.
"""

import hmac
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager

from evomerge.errors import ConfigError
from evomerge.serve.refusals import Refusal, too_many

_MINUTE = 60.0


def keys_from(variable: str | None, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the keys that a variable holds, separated by commas or white space; none where no variable is named.

    Raises ConfigError where it holds none, or what no client could send.
    """
    if variable is None:
        return ()
    keys = tuple(environment.get(variable, "").replace(",", " ").split())
    if not keys:
        raise ConfigError(f"--api-key-env: the environment variable {variable} is not set; put a key of your own in it")
    if not all(key.isascii() and key.isprintable() for key in keys):
        raise ConfigError(f"--api-key-env: the environment variable {variable} holds characters that no key has")
    return keys


class Keys:
    """The keys that open the door; with none it stands open."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = tuple(key.encode() for key in keys)

    def holder(self, authorization: str | None) -> int:
        """Return which key was shown, 0 where none is wanted. Raises Refusal (401)."""
        if not self._keys:
            return 0
        scheme, _, shown = (authorization or "").partition(" ")
        matches = [hmac.compare_digest(key, shown.strip().encode()) for key in self._keys]
        if scheme.lower() == "bearer" and any(matches):
            return matches.index(True)
        raise Refusal(401, "this server wants its key, as in Authorization: Bearer KEY", code="invalid_api_key")


class Rate:
    """At most `most` requests of one holder in any 60 seconds; None is no limit."""

    def __init__(self, most: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._times: dict[int, deque[float]] = {}

    def count(self, holder: int) -> None:
        """Count a request. Raises Refusal (429) for one too many, which is not counted."""
        if self._most is None:
            return
        now, times = self._clock(), self._times.setdefault(holder, deque())
        while times and times[0] <= now - _MINUTE:
            times.popleft()
        if len(times) >= self._most:
            raise too_many(f"a key may ask {self._most} times a minute; wait", times[0] + _MINUTE - now)
        times.append(now)


class Gate:
    """At most `most` requests under way."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.inside = 0

    @contextmanager
    def pass_through(self) -> Generator[None]:
        """Count a request as under way while inside. Raises Refusal (429) where there are too many."""
        if self.inside >= self._most:
            raise too_many(f"{self._most} requests are under way already, and no more are taken at a time", 1.0)
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
