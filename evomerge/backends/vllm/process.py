"""A vLLM server as processes: what is started with which words and environment, and how all of it is ended.

Promised: whatever becomes of this process, no process of the server is left (see watch.py). The key never stands on a
command line. Nothing here speaks HTTP, and nothing here imports vLLM.
"""

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evomerge.backends.vllm import watch
from evomerge.backends.vllm.guard import VARIABLE
from evomerge.backends.vllm.settings import Argument, VllmSettings
from evomerge.errors import ConfigError

GRACE = 15.0
RANKS = (8, 16, 32, 64, 128, 256, 512)
"""The ranks that every vLLM we know of has room for; it takes no others."""


@dataclass(frozen=True)
class Adapters:
    """Adapters to make room for: how many at a time, the highest rank among them, the last names of their modules.

    Room for no other modules is needed for more than memory: vLLM computes no likelihoods of a prompt where its output
    head may have an adapter (on a CPU its engine dies of it).
    """

    slots: int
    rank: int
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Address:
    """Where a server is to listen, and the key that it wants."""

    port: int
    key: str = field(repr=False)

    @classmethod
    def new(cls) -> "Address":
        """Return a free port of the loopback interface with a new key. Another process may take the port meanwhile."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return cls(probe.getsockname()[1], secrets.token_urlsafe(32))

    @property
    def url(self) -> str:
        """The address without a path."""
        return f"http://127.0.0.1:{self.port}"


class Process:
    """A server's process group, led by its watcher. What it prints is appended to `log`."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, grace: float = GRACE) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._start = output.tell()
            self._watcher = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-I", watch.__file__, str(grace), *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
        self._log = log

    @property
    def group(self) -> int:
        """The id of the process group, which is that of its leader, the watcher."""
        return self._watcher.pid

    @property
    def running(self) -> bool:
        """Whether the watcher runs, and so the server. A watcher that ended is left to be reaped by `end`.

        Until then its number belongs to nobody else, so that no other process is taken for one of the group.
        """
        if self._watcher.returncode is not None:
            return False
        return os.waitid(os.P_PID, self.group, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def said(self) -> str:
        """Return what the server has printed since it was started."""
        with self._log.open("rb") as log:
            log.seek(self._start)
            return log.read().decode(errors="replace")

    async def end(self) -> int:
        """End the whole group and return its watcher's exit code, when no process of it is left. Harmless twice.

        Cancelled, it leaves the rest to the watcher.
        """
        if self._watcher.returncode is not None:
            return self._watcher.returncode
        if self._watcher.stdin is not None:
            self._watcher.stdin.close()
        while self.running:  # noqa: ASYNC110  # the end of another process, which nothing here is told of
            await asyncio.sleep(watch.PAUSE)
        while left := watch.members(self.group):  # there are some only if the watcher was killed
            watch.signal_all(left, signal.SIGKILL)
            await asyncio.sleep(watch.PAUSE)
        return self._watcher.wait()


def server_command(
    settings: VllmSettings,
    python: Path,
    module: Sequence[str],
    model: Path,
    address: Address,
    *,
    adapters: Adapters | None,
) -> list[str]:
    """Return the words that start a server: `python -m` of `module`, what we set, and the settings' own arguments.

    Raises ConfigError for a rank that vLLM has no room for.
    """
    words = {
        "model": str(model),
        "served-model-name": "base",
        "host": "127.0.0.1",
        "port": address.port,
        "dtype": settings.dtype,
        "tensor-parallel-size": settings.tensor_parallel,
        "generation-config": "vllm",
        "middleware": "evomerge.backends.vllm.guard.Guard",
        "worker-extension-cls": "evomerge.backends.vllm.extension.Extension",
        "disable-uvicorn-access-log": True,
        **(_room_for(adapters) if adapters else {}),
        **settings.args,
    }
    return [
        str(python),
        "-P",
        "-m",
        *module,
        *(word for name, value in words.items() for word in _argument(name, value)),
    ]


def _argument(name: str, value: Argument) -> list[str]:
    match value:
        case True:
            return [f"--{name}"]
        case False:
            return [f"--no-{name}"]
        case list():
            return [f"--{name}", *map(str, value)]
        case _:
            return [f"--{name}={value}"]


def _room_for(adapters: Adapters) -> dict[str, Argument]:
    rank = next((rank for rank in RANKS if rank >= adapters.rank), None)
    if rank is None:
        raise ConfigError(f"vLLM serves adapters up to rank {RANKS[-1]}, and one here may have rank {adapters.rank}")
    words: dict[str, Argument] = {"max-loras": adapters.slots, "max-cpu-loras": adapters.slots, "max-lora-rank": rank}
    return {"enable-lora": True, **words, **({"lora-target-modules": [*adapters.modules]} if adapters.modules else {})}


def server_environment(
    settings: VllmSettings, outside: Mapping[str, str], address: Address, *, number: int, cpu: bool
) -> dict[str, str]:
    """Return the environment of server `number` (from 0): ours, with what the user set left as it is where it can be.

    Servers on GPUs see their own slice of those that the user shows; on a CPU the cores are shared out among all
    workers, bound to none of them, because vLLM would bind those of every server to the same. Raises ConfigError
    without GPUs enough.
    """
    defaults = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_USE_AOT_COMPILE": "0",
        "VLLM_HOST_IP": "127.0.0.1",
    }
    if cpu:
        if "kv-cache-memory-bytes" not in settings.args:
            defaults["VLLM_CPU_KVCACHE_SPACE"] = "1"
        if "VLLM_CPU_OMP_THREADS_BIND" not in outside:
            defaults["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
            defaults["OMP_NUM_THREADS"] = str(max(1, (_cores() - 1) // settings.gpus))
    required = {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        VARIABLE: address.key,
    }
    if not cpu:
        required["CUDA_VISIBLE_DEVICES"] = _gpus(settings, outside.get("CUDA_VISIBLE_DEVICES"), number)
    return {**defaults, **outside, **required}


def _cores() -> int:
    """Return how many cores this process may use; the two threads of a core are one."""
    cores: set[str] = set()
    for number in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
        cores.add(siblings.read_text().strip() if siblings.exists() else str(number))
    return len(cores)


def _gpus(settings: VllmSettings, shown: str | None, number: int) -> str:
    if shown is None:
        names = [str(index) for index in range(settings.gpus)]
    else:
        names = [name.strip() for name in shown.split(",") if name.strip()]
    if len(names) < settings.gpus:
        raise ConfigError(
            f"backend: gpus is {settings.gpus}, and CUDA_VISIBLE_DEVICES shows {len(names)}; lower the one or set the "
            "other"
        )
    first = number * settings.tensor_parallel
    return ",".join(names[first : first + settings.tensor_parallel])
