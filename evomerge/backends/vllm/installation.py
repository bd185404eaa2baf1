"""What is installed beside a Python: which vLLM, for which kind of device, and whether evomerge is there and the same.

That Python is asked in a process of its own, which imports nothing heavy; so a wrong one is known before it is started.
"""

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from evomerge.errors import ConfigError
from evomerge.version import __version__

_ASK = """
import importlib.metadata, importlib.util, json, pathlib
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
def evomerge():
    try:
        from evomerge.version import __version__
    except ImportError:
        return None
    return __version__
spec = importlib.util.find_spec("vllm")
folder = pathlib.Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None
print(json.dumps({
    "there": folder is not None, "vllm": version("vllm"), "cpu": version("vllm-cpu"), "evomerge": evomerge(),
    "module": folder is not None and (folder / "entrypoints" / "openai" / "api_server.py").exists(),
}))
"""


@dataclass(frozen=True)
class Installation:
    """A vLLM: its version, whether it computes on the CPU, and the module (and words) that starts a server."""

    version: str
    cpu: bool
    module: tuple[str, ...]


async def installed(python: Path) -> Installation:
    """Return which vLLM a Python has. Raises ConfigError where it has none, or not the evomerge that asks."""
    found = await _asked(python)
    if not found["there"]:
        raise ConfigError(
            f"backend: {python} has no vLLM; install it there with: pip install 'evomerge[vllm]' (for a CPU see "
            "`make vllm-cpu`), or name under `python` one that has it"
        )
    if found["evomerge"] != __version__:
        has = f"evomerge {found['evomerge']}" if found["evomerge"] else "no evomerge"
        raise ConfigError(
            f"backend: {python} has {has}, and this is {__version__}; vLLM loads ours inside its workers, so install "
            "the same there"
        )
    cpu = found["cpu"] is not None if found["vllm"] is None else "cpu" in found["vllm"]
    # `vllm serve` wants a package of that very name, which the community's build for CPUs is not
    module = ("vllm.entrypoints.openai.api_server",) if found["module"] else ("vllm.entrypoints.cli.main", "serve")
    return Installation(found["vllm"] or found["cpu"] or "of unknown version", cpu, module)


async def _asked(python: Path) -> dict[str, Any]:
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            str(python),
            "-P",
            "-c",
            _ASK,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            env=dict(os.environ),
        )
    except OSError as error:
        raise ConfigError(f"backend: python: {python} cannot be run ({error.strerror})") from None
    out, err = await process.communicate()
    try:
        return cast("dict[str, Any]", json.loads(out))
    except ValueError:
        said = err.decode(errors="replace").strip().splitlines()
        raise ConfigError(
            f"backend: python: {python} is no Python of 3.11 or newer ({said[-1] if said else '?'})"
        ) from None
