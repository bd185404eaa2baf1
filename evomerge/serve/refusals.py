"""What a client is told when it gets no answer: a status, and a body as OpenAI's API writes it.

Each message is one sentence for a person. Nothing of the inside of the server stands in it: no key, path or address.
"""

import math
from typing import Any

INVALID = "invalid_request_error"


class Refusal(Exception):
    """A request that is not answered. `retry_after` is in seconds, where asking again makes sense."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.code, self.param, self.retry_after = status, kind, code, param, retry_after

    @property
    def body(self) -> dict[str, Any]:
        """The body, ready for JSON."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """What stands in the head of the reply."""
        return {} if self.retry_after is None else {"retry-after": str(max(1, math.ceil(self.retry_after)))}


def invalid(message: str, param: str | None = None, code: str | None = "invalid_value") -> Refusal:
    """Return the refusal (400) of a body that cannot be used."""
    return Refusal(400, message, param=param, code=code)


def unsupported(message: str, param: str) -> Refusal:
    """Return the refusal (400) of something that this server cannot do."""
    return invalid(message, param, "unsupported_parameter")


def too_many(message: str, retry_after: float) -> Refusal:
    """Return the refusal (429) of a client that asks too much at once."""
    return Refusal(429, message, kind="rate_limit_error", code="rate_limit_exceeded", retry_after=retry_after)


def unavailable(message: str, retry_after: float | None = 1.0) -> Refusal:
    """Return the refusal (503) where nobody could answer."""
    return Refusal(503, message, kind="server_error", code="unavailable", retry_after=retry_after)
