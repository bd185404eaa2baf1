"""The settings of endpoints, as a job writes them under `endpoints:`, and what follows from them alone.

Plain typed values: nothing here speaks HTTP, so that a job can be read and checked where no client is installed. Keys
never stand here, only the names of the variables that hold them.
"""

import hashlib
import json
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, field_validator, model_validator

from evomerge.errors import ConfigError
from evomerge.recipe.settings import Settings

_OURS = frozenset({"model", "messages", "prompt", "system", "stream", "n", "echo", "best_of"})
Usd = Annotated[float, Field(ge=0)]


class EndpointSettings(Settings):
    """A model that answers over HTTP."""

    url: str
    """Address of the API, as in `https://host/v1`; the dialect adds to it, as in `/chat/completions`."""

    model: str = Field(min_length=1)
    """Name of the model there."""

    dialect: str = "openai"
    """How it is spoken to: `openai` (chat completions), `completions` (OpenAI's older ones, of plain text), `anthropic`
    (messages), or a dialect that another package brings."""

    revision: str | None = Field(default=None, min_length=1)
    """Your name for this state of the model. A provider may change a model under its name: write another revision, and
    everything is asked anew."""

    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable that holds the key; without it no key is sent. A key never stands in a job."""

    usd_per_mtok: tuple[Usd, Usd] | None = None
    """Price of a million tokens read and of a million written, in USD: `check` tells the highest cost from them."""

    request: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    """Further keys of each request, for models that want other ones: `{max_tokens: null, max_completion_tokens: 500,
    temperature: null}`; null leaves a key out."""

    likelihoods: Literal["echo", "top_logprobs"] | None = None
    """How it tells the likelihood of a given text, for tasks that judge by that. `echo`, in the dialect `completions`:
    it reads the text and tells each token's. `top_logprobs`, in the dialect `openai`: it tells which tokens may come
    first, so choices are judged by their first token, as of letters. Without it such tasks are refused."""

    logprobs: bool = True
    """Whether it tells log-probabilities of its own answers, in the dialects that have them. Combiners that weigh by
    confidence ask for them; a model that refuses the key needs `false`."""

    structured: Literal["response_format", "structured_outputs"] | None = "response_format"
    """How an answer is held to choices or to a schema, where a task wants that: by `response_format` (OpenAI) or
    `structured_outputs` (vLLM); `null` leaves it to the prompt. The dialect `anthropic` has one way of its own."""

    max_in_flight: int = Field(default=8, ge=1, le=1000)
    """How many requests may be under way at the same time."""

    requests_per_minute: float | None = Field(default=None, gt=0)
    """How many requests may be sent a minute; they are spread over it."""

    tokens_per_minute: float | None = Field(default=None, gt=0)
    """How many tokens may be read and written a minute. A request counts with the most it may take, until its
    answer tells what it took."""

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
        bounds = {key: request[key] for key in ("max_tokens", "max_completion_tokens") if key in request}
        unbounded = "max_tokens" in bounds and not any(bounds.values())
        if unbounded or any(value is not None and not _is_length(value) for value in bounds.values()):
            raise ValueError(
                "an answer without a bound has no highest cost; give max_tokens or max_completion_tokens a number"
            )
        return request

    @field_validator("dialect")
    @classmethod
    def _is_spoken(cls, dialect: str) -> str:
        from evomerge.backends.api.dialects.registry import get

        try:
            get(dialect)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return dialect

    @model_validator(mode="after")
    def _tells_likelihoods(self) -> "EndpointSettings":
        from evomerge.backends.api.dialects.registry import get

        if self.likelihoods is None:
            return self
        ways = get(self.dialect).ways
        if self.likelihoods not in ways:
            known = f"knows {', '.join(sorted(ways))}" if ways else "tells no likelihoods; leave it out"
            raise ValueError(f"likelihoods: the dialect {self.dialect} has no {self.likelihoods}: it {known}")
        return self

    @property
    def max_tokens(self) -> int | None:
        """The length of an answer that `request` asks for in place of the task's."""
        named = (self.request.get(key) for key in ("max_completion_tokens", "max_tokens"))
        return max((length for length in named if isinstance(length, int)), default=None)

    @property
    def host(self) -> str:
        """The host and port, for people."""
        return urlsplit(self.url).netloc

    @property
    def fingerprint(self) -> str:
        """A hash of what decides the answers (16 hexadecimal digits): address, model, revision and how it is asked."""
        fields = type(self).model_fields
        decisive = ("dialect", "revision", "likelihoods", "logprobs", "structured")
        changed = {key: value for key in decisive if (value := getattr(self, key)) != fields[key].default}
        asked: list[Any] = [self.url, self.model, *([self.request] if self.request or changed else [])]
        asked += [changed] if changed else []
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _is_length(value: JsonValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
