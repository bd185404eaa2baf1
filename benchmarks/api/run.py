"""The client of endpoints beside the official `openai` client at equal connections, in turn in one run, as Markdown.

    python -m benchmarks.api.run --requests 10000

The server and each client are processes of their own. `sockets` is what the server can do when a client costs nothing:
where that is not far above the clients, the server was measured and not they.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec

from benchmarks.merge.tables import machine

PYTHON = [sys.executable, "-m"]


class Wanted(argparse.Namespace):
    """What was asked for."""

    requests: int
    connections: str
    rounds: int
    prompt: int


def asked() -> Wanted:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=10_000, help="requests of each client (default: %(default)s)")
    parser.add_argument("--connections", default="8,64", help="limits in flight (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--prompt", type=int, default=400, help="bytes of a prompt (default: %(default)s)")
    return parser.parse_args(namespace=Wanted())


@contextmanager
def server() -> Generator[str]:
    """Run the server while inside; yields its address."""
    with subprocess.Popen([*PYTHON, "benchmarks.api.server"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


def measure(client: str, url: str, requests: int, connections: int, prompt: int) -> dict[str, float]:
    """Return what one client took, in a process of its own."""
    command = [*PYTHON, "benchmarks.api.client", client, url, str(requests), str(connections), str(prompt)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def throughput(wanted: Wanted, url: str, connections: int, clients: list[str]) -> None:
    """Print requests a second of each client, with ratios of one round each."""
    rounds = [
        {client: measure(client, url, wanted.requests, connections, wanted.prompt) for client in clients}
        for _ in range(wanted.rounds)
    ]
    print(f"\n{wanted.requests:,} requests, {connections} connections\n")
    print("| client | requests a second | ratio to evomerge, round by round | processor, ms a request | peak, MiB |")
    print("|---|---|---|---|---|")
    for client in clients:
        speeds = [wanted.requests / found[client]["seconds"] for found in rounds]
        ratios = [found["evomerge"]["seconds"] / found[client]["seconds"] for found in rounds]
        spent = statistics.median(found[client]["processor"] for found in rounds) / wanted.requests * 1000
        peak = statistics.median(found[client]["peak_mib"] for found in rounds)
        shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"| {client} | {statistics.median(speeds):,.0f} | {shown} | {spent:.2f} | {peak:.0f} |")


def memory(wanted: Wanted, url: str, clients: list[str]) -> None:
    """Print how much memory a long queue of large requests takes."""
    size, connections = 20_000, 8
    print(f"\nMemory: prompts of {size:,} bytes, {connections} connections; MiB beyond what a few requests take\n")
    print(f"| client | 500 requests | {wanted.requests:,} requests |\n|---|---|---|")
    for client in clients:
        found = [measure(client, url, count, connections, size)["more_mib"] for count in (500, wanted.requests)]
        print(f"| {client} | {found[0]:.1f} | {found[1]:.1f} |")


def main() -> None:
    """Measure what was asked for."""
    wanted = asked()
    there = find_spec("openai") is not None
    print(machine(1, ("httpx2", *(("openai", "httpx") if there else ()))))
    if not there:
        print("\nThe openai client is not installed, and is left out.")
    with server() as url:
        for connections in map(int, wanted.connections.split(",")):
            throughput(wanted, url, connections, ["evomerge", *(["openai"] if there else []), "sockets"])
        memory(wanted, url, ["evomerge", *(["openai, a task for each"] if there else [])])


if __name__ == "__main__":
    main()
