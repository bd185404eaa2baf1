"""The settings of a merging service as a backend, as a job writes them under `backend:`.

Plain typed values: nothing here speaks HTTP, so that a job can be read where no client is installed. The rate is low
unless somebody says otherwise, as a service has other users.
"""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from evomerge.recipe.settings import Settings

DialectName = Literal["lorax", "llama.cpp", "vllm"]


class ServiceSettings(Settings):
    """A service that holds adapters and merges them on request; it is never started or ended here."""

    kind: Literal["service"]
    """`service`: a server that somebody else runs, and that holds the adapters which the recipe names."""

    dialect: DialectName
    """What kind of server it is, which decides how a merge is asked for and what can be merged."""

    url: str
    """Its address, as in `http://127.0.0.1:8080`."""

    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable with the server's key; without it no key is sent."""

    requests_per_minute: float | None = Field(default=60, gt=0)
    """How many requests may begin in a minute, evenly spaced, so that others find room; null for as many as come."""

    max_in_flight: int = Field(default=2, ge=1, le=1000)
    """How many requests may be under way at the same time."""

    timeout: float = Field(default=120, gt=0)
    """Seconds after which a request without a whole answer is given up, and asked again."""

    source: Literal["hub", "local", "s3", "pbase"] | None = None
    """Where LoRAX finds adapters by their ids (its `adapter_source`); left out, the server decides."""

    folder: str | None = None
    """Folder that vLLM sees under the same path, relative to the job: merged adapters are put there while asked."""

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url):
            raise ValueError(f"{url!r} is no address of http or https; write it as http://127.0.0.1:8080")
        return url.rstrip("/").removesuffix("/v1")

    @model_validator(mode="after")
    def _belongs_to_its_dialect(self) -> "ServiceSettings":
        for key, dialect in (("source", "lorax"), ("folder", "vllm")):
            if getattr(self, key) is not None and self.dialect != dialect:
                raise ValueError(f"{key} is for {dialect}, and {self.dialect} has none; leave it out")
        return self

    @property
    def host(self) -> str:
        """The host and port, for people."""
        return self.url.partition("://")[2].partition("/")[0]
