"""The settings of backends, as a job writes them under `backend:`.

Plain typed values; no engine is imported here, so that a job can be read and checked where none is installed.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import Discriminator, Field, Tag

from evomerge.backends.services.settings import ServiceSettings
from evomerge.backends.vllm.settings import VllmSettings
from evomerge.recipe.settings import Settings


class LocalSettings(Settings):
    """The embedded default: transformers and torch in this process."""

    kind: Literal["local"] = "local"
    """`local`: transformers and torch in this process."""

    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:[0-9]+)?)$")
    """Where the model computes: `auto` (CUDA where there is one, or else the CPU), `cpu`, `cuda`, `cuda:1`, `mps`."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What the model computes in: `auto` is float32 on a CPU, and the checkpoint's own dtype elsewhere."""

    batch_size: int = Field(default=64, ge=1)
    """How many requests share a batch. More is faster and takes more memory."""

    threads: int | None = Field(default=None, ge=1)
    """CPU threads of torch. Without it: one for a model below ten million parameters, else as many as torch chooses."""


def _kind(value: Any) -> str:
    """Return the kind of a backend as it is written; the embedded default where none is."""
    if isinstance(value, Mapping):
        return str(cast("Mapping[str, Any]", value).get("kind", "local"))
    return str(getattr(value, "kind", "local"))


BackendSettings = Annotated[
    Annotated[LocalSettings, Tag("local")]
    | Annotated[VllmSettings, Tag("vllm")]
    | Annotated[ServiceSettings, Tag("service")],
    Discriminator(
        _kind,
        custom_error_type="kind",
        custom_error_message="'kind' is one of: local, vllm, service",
    ),
]
"""What `backend:` may hold, told apart by `kind`."""
