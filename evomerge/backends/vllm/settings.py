"""The settings of vLLM as a backend, as a job writes them under `backend:`.

Plain typed values: nothing here imports vLLM, so that a job can be read and checked where it is not installed.
"""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from evomerge.recipe.settings import Settings

OURS = frozenset(
    {
        *("model", "host", "port", "uds", "api-key", "served-model-name", "dtype", "generation-config", "middleware"),
        *("tensor-parallel-size", "worker-extension-cls", "tokenizer", "runner", "task", "config", "root-path"),
        *(
            "enable-lora",
            "max-loras",
            "max-lora-rank",
            "max-cpu-loras",
            "lora-modules",
            "lora-target-modules",
            "api-server-count",
        ),
        *("ssl-keyfile", "ssl-certfile", "headless", "data-parallel-size", "pipeline-parallel-size"),
    }
)
"""Arguments of vLLM's server that are set here, or that would make it another kind of server."""

Argument = str | int | float | bool | list[str | int | float]


class ProxySettings(Settings):
    """Adapters that stand for whole models in a search."""

    rank: int = Field(default=64, ge=1, le=512)
    """Rank of each model's adapter. More lacks less of the model's change, and takes more time and memory."""


class VllmSettings(Settings):
    """A vLLM server: one that is started for the study, or with `url` one that is there already."""

    kind: Literal["vllm"]
    """`vllm`: a server of vLLM, which keeps its engine while candidates come and go."""

    gpus: int = Field(default=1, ge=1)
    """How many GPUs to use: one server for every `tensor_parallel` of them. Without a GPU, servers share the CPU."""

    tensor_parallel: int = Field(default=1, ge=1)
    """How many GPUs one server's model is spread over."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What the model computes in: `auto` is float32 on a CPU, and the checkpoint's own dtype elsewhere."""

    slots: int = Field(default=8, ge=1, le=256)
    """How many adapters a server holds at a time, whose requests share its batches. Whole models come one by one."""

    experts: Literal["auto", "gpu", "pinned", "files"] = "auto"
    """Where base and experts of a merge stay: in `gpu` memory, in `pinned` memory of the host, or in mapped `files`;
    `auto` takes the first of them with room."""

    proxy: ProxySettings | None = None
    """Search whole models by adapters of low rank, `slots` at a time: each model's change to the base is extracted once.
    Finalists and baselines are scored exactly, and how well the two agree is reported. For weighted sums only."""

    args: dict[str, Argument] = Field(default_factory=dict[str, Argument])
    """Further arguments of vLLM's server, as in `{max-model-len: 4096, gpu-memory-utilization: 0.8}`; true for those
    that take no value."""

    python: str | None = None
    """The Python that has vLLM and evomerge, where that is not this one: a path, relative to the job."""

    url: str | None = None
    """Address of a server that is there already, as in `http://127.0.0.1:8000`; none is started then."""

    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable with the key of the server at `url`."""

    max_in_flight: int = Field(default=256, ge=1, le=10_000)
    """How many requests a server is given at a time; the others wait here."""

    @field_validator("args")
    @classmethod
    def _leaves_ours_alone(cls, args: dict[str, Argument]) -> dict[str, Argument]:
        for name in args:
            if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9.]*([-_.][a-zA-Z0-9.]+)*", name):
                raise ValueError(f"{name!r} is no argument of vLLM's; write it without dashes before it")
            if name.replace("_", "-").removeprefix("no-") in OURS:
                raise ValueError(f"'{name}' is set by evomerge or would change what it starts; leave it out")
        return {name.replace("_", "-"): value for name, value in args.items()}

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url):
            raise ValueError(f"{url!r} is no address of http or https; write it as http://127.0.0.1:8000")
        return None if url is None else url.rstrip("/").removesuffix("/v1")

    @model_validator(mode="after")
    def _fits_together(self) -> "VllmSettings":
        if self.gpus % self.tensor_parallel:
            raise ValueError(f"{self.gpus} GPUs cannot be shared out {self.tensor_parallel} by {self.tensor_parallel}")
        if self.url is None and self.api_key_env is not None:
            raise ValueError("api_key_env belongs to a server at `url`; the one that is started has a key of its own")
        if self.url is not None:
            named = sorted({"args", "python", "gpus", "tensor_parallel", "dtype"} & self.model_fields_set)
            if named:
                raise ValueError(f"{' and '.join(named)} cannot be chosen for the server at `url`; leave it out")
        return self

    @property
    def servers(self) -> int:
        """How many servers are started."""
        return self.gpus // self.tensor_parallel
