"""The settings of endpoints, as a job writes them under `endpoints:`, and what follows from them alone.

Plain typed values: nothing here speaks HTTP, so that a job can be read and checked where no client is installed. Keys
never stand here, only the names of the variables that hold them.
"""

import hashlib
import json
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, field_validator

from evomerge.recipe.settings import Settings

_OURS = frozenset({"model", "messages", "stream", "n"})
Usd = Annotated[float, Field(ge=0)]


class EndpointSettings(Settings):
    """A model that answers over HTTP, in the dialect of OpenAI's chat completions."""

    url: str
    """Address of the API, as in `https://host/v1`; `/chat/completions` is added to it."""

    model: str = Field(min_length=1)
    """Name of the model there."""

    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable that holds the key; without it no key is sent. A key never stands in a job."""

    usd_per_mtok: tuple[Usd, Usd] | None = None
    """Price of a million tokens read and of a million written, in USD: `check` tells the highest cost from them."""

    request: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    """Further keys of each request, for models that want other ones: `{max_tokens: null, max_completion_tokens: 500,
    temperature: null}`; null leaves a key out."""

    max_in_flight: int = Field(default=8, ge=1, le=1000)
    """How many requests may be under way at the same time."""

    timeout: float = Field(default=120, gt=0)
    """Seconds after which a request without a whole answer is given up, and asked again."""

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise ValueError(f"{url!r} is no address; write it as https://host/v1") from None
        if parts.scheme not in {"http", "https"} or not host:
            raise ValueError(f"{url!r} is no address of http or https; write it as https://host/v1")
        if parts.username is not None or parts.password is not None:
            raise ValueError("an address holds no user or password; put the key in a variable and name api_key_env")
        if parts.query or parts.fragment or any(character.isspace() for character in url):
            raise ValueError(f"{url!r} has more than scheme, host and path; leave the rest out")
        return url.rstrip("/")

    @field_validator("request")
    @classmethod
    def _leaves_the_question_alone(cls, request: dict[str, JsonValue]) -> dict[str, JsonValue]:
        taken = next((key for key in request if key in _OURS), None)
        if taken is not None:
            raise ValueError(f"'{taken}' is set by the task or the endpoint, or cannot be had; leave it out")
        return request

    @property
    def max_tokens(self) -> int | None:
        """The length of an answer that `request` asks for in place of the task's."""
        found = self.request.get("max_completion_tokens", self.request.get("max_tokens"))
        return found if isinstance(found, int) else None

    @property
    def host(self) -> str:
        """The host and port, for people."""
        return urlsplit(self.url).netloc

    @property
    def fingerprint(self) -> str:
        """A hash of the address, the model's name and further keys of its requests (16 hexadecimal digits)."""
        asked = [self.url, self.model, *([self.request] if self.request else [])]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
