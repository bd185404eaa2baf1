"""Serves models of the tiny family over HTTP, each in a process of its own, as the endpoints of a job name them.

    python zoo/tiny/serve.py configs/api-ensemble.yaml                                                until Ctrl-C
    python zoo/tiny/serve.py configs/api-ensemble.yaml evomerge run configs/api-ensemble.yaml         while that runs

An endpoint's `url` says on which port, its `model` which folder of this one. Nothing leaves the machine.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from evomerge.backends.api.settings import EndpointSettings
from evomerge.study.job import load_job

TINY = Path(__file__).parent


def main() -> int:
    """Serve while the command runs, or until Ctrl-C; return the command's exit code."""
    job, *command = sys.argv[1:]
    endpoints = load_job(Path(job)).settings.endpoints
    with served(list(endpoints.values())):
        print(f"serving {', '.join(endpoints)}", flush=True)
        if command:
            return subprocess.call(command)
        with suppress(KeyboardInterrupt):
            signal.pause()
    return 0


@contextmanager
def served(endpoints: list[EndpointSettings]) -> Generator[None]:
    """Have a server for each endpoint while inside, and all of them ready."""
    servers = [start(endpoint) for endpoint in endpoints]
    try:
        for server in servers:
            wait(server)
        yield
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()


def start(endpoint: EndpointSettings) -> "subprocess.Popen[str]":
    """Start the server of one endpoint."""
    words = [sys.executable, "-m", "evomerge", "serve", str(TINY / endpoint.model), "--name", endpoint.model]
    port = ["--port", str(urlsplit(endpoint.url).port or 80)]
    # a process group of its own, so that Ctrl-C is heard by whoever asks first, and the servers end last
    return subprocess.Popen(
        [*words, *port], stdout=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def wait(server: "subprocess.Popen[str]") -> None:
    """Return when a server takes questions."""
    if server.stdout is None or not any(line.startswith("serving on ") for line in server.stdout):
        sys.exit("a server did not start; its own words stand above")


if __name__ == "__main__":
    sys.exit(main())
