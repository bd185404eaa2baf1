"""Which GPUs this machine has, and how much of their memory is free: for words, before anything is started.

The driver's own program is asked, so that nothing heavy is imported and no memory is taken.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
"""What is there where a driver of NVIDIA's or AMD's is."""

_ASK = ("nvidia-smi", "--query-gpu=name,memory.free,memory.total", "--format=csv,noheader,nounits")
_PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU; memory in MiB."""

    name: str
    free: int
    total: int


def has_gpu() -> bool:
    """Return whether this machine has a GPU that vLLM may use."""
    return any(device.exists() for device in DEVICES)


def gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that nvidia-smi tells of; none where there is no such program, or it tells nothing."""
    try:
        told = subprocess.run(_ASK, capture_output=True, text=True, timeout=_PATIENCE, check=True).stdout  # noqa: S603
        rows = [line.rsplit(",", 2) for line in told.splitlines() if line.strip()]
        return tuple(Gpu(name.strip(), int(free), int(total)) for name, free, total in rows)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()


def where() -> str:
    """Say where a server will compute, and what is free there."""
    if not has_gpu():
        return "the CPU"
    found = [f"{one.name}, {one.free / 1024:.1f} of {one.total / 1024:.1f} GiB free" for one in gpus()]
    return f"a GPU ({'; '.join(found)})" if found else "a GPU"
