"""What a dialect is: it writes a request as JSON, and reads an answer out of JSON. Pure: nothing here sends anything.

A dialect is one class in one file with the decorator `registry.dialect`. Whatever is asked is one request of HTTP, so
that it is paid for once and answered as a whole.
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from evomerge.backends.api.settings import EndpointSettings
from evomerge.exchange import Answer, Request

Way = Literal["echo", "top_logprobs"]
"""How a model can be brought to tell the likelihood of a given text."""


class Dialect(Protocol):
    """One way to speak to endpoints; one instance serves them all."""

    @property
    def path(self) -> str:
        """What is added to an endpoint's address."""
        ...

    @property
    def ways(self) -> frozenset[Way]:
        """The ways to ask for likelihoods that there are in this dialect."""
        ...

    def headers(self, key: str | None) -> Mapping[str, str]:
        """Return what every request carries, the key with it."""
        ...

    def body(self, endpoint: EndpointSettings, request: Request) -> dict[str, Any]:
        """Return the JSON that asks an endpoint. Raises ConfigError for what cannot be asked in this dialect."""
        ...

    def answer(self, endpoint: EndpointSettings, request: Request, reply: Mapping[str, Any]) -> Answer:
        """Return the answer that a successful reply holds. Raises Malformed for one that holds none."""
        ...

    def complaint(self, reply: Mapping[str, Any]) -> str:
        """Return what a reply says about an error, on one line; nothing where it says nothing."""
        ...
