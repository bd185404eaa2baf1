"""vLLM for tests: the Python that has the real one, and a stand-in of a few processes that is up in a moment.

The stand-in is a package `vllm` found before the real one. It starts a child and a grandchild as vLLM does, listens
where it is told behind the real guard, and does what the variable STAND_IN says; it answers no prompt.
"""

import os
import select
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.require import REPOSITORY, require

SERVER = """
import asyncio, os, subprocess, sys, time
from evomerge.backends.vllm.guard import Guard

todo = os.environ.get("STAND_IN", "")
print("(APIServer pid=1) INFO 11-23 10:00:00 [model.py:1] Resolved architecture: StandIn", flush=True)
if todo == "refuse":
    sys.exit("pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\\n"
             "  Value error, User-specified max_model_len (128) is greater than 64 [type=value_error, input_value=1]\\n"
             "    For further information visit an address")
if todo == "break":
    sys.exit("(EngineCore pid=2) ERROR 11-23 10:00:00 [core.py:1] torch.OutOfMemoryError: no memory is left\\n"
             "RuntimeError: Engine core initialization failed. See root cause above.")
if todo == "once" and not os.path.exists(os.environ["STAND_IN_MARK"]):
    open(os.environ["STAND_IN_MARK"], "w").close()
    sys.exit("OSError: [Errno 98] Address already in use")
deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" if todo == "deaf" else ""
below = f"{deaf}\\nprint(os.getpid(), flush=True)\\ntime.sleep(600)"
child = f"subprocess.Popen([sys.executable, '-c', 'import os, time\\\\n' + {below!r}])"
code = f"import os, subprocess, sys, time\\n{child}\\n{below}"
engine = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
for _ in range(2):
    engine.stdout.readline()
print("both are there", flush=True)
if todo == "stuck":
    time.sleep(600)

async def app(scope, receive, send):
    status = 200 if engine.poll() is None else 503
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})

async def serve(reader, writer):
    first, *lines = (await reader.readuntil(b"\\r\\n\\r\\n")).strip().split(b"\\r\\n")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    async def send(message):
        if message["type"] == "http.response.start":
            writer.write(b"HTTP/1.1 %d said\\r\\nconnection: close\\r\\n\\r\\n" % message["status"])
        else:
            writer.write(message["body"])
    await Guard(app)({"type": "http", "path": first.split()[1].decode(), "headers": headers}, None, send)
    await writer.drain()
    writer.close()

async def main():
    port = int(next(word for word in sys.argv if word.startswith("--port=")).partition("=")[2])
    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        await server.serve_forever()

asyncio.run(main())
"""


def write_stand_in(folder: Path) -> Path:
    """Write the stand-in and return the folder that belongs on PYTHONPATH."""
    module = folder / "vllm" / "entrypoints" / "openai"
    module.mkdir(parents=True)
    for package in (module, module.parent, module.parent.parent):
        (package / "__init__.py").touch()
    (module / "api_server.py").write_text(SERVER)
    about = folder / "vllm-99.0+cpu.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 99.0+cpu\n")
    return folder


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the stand-in what every Python started here finds as vLLM; returns its folder."""
    folder = write_stand_in(tmp_path / "stand-in")
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{REPOSITORY}")
    monkeypatch.delenv("STAND_IN", raising=False)
    return folder


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """Return the Python of the environment with the real vLLM; skips, or fails where EVOMERGE_REQUIRE names it."""
    return require("vllm")


def wait_for(processes: Iterable[int]) -> None:
    """Return when all of the processes have ended. They are no children of this one."""
    for process in processes:
        try:
            handle = os.pidfd_open(process)
        except ProcessLookupError:
            continue
        select.select([handle], [], [])
        os.close(handle)
