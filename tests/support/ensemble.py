"""Endpoints that add numbers, each wrong on items of its own, and a job over them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from tests.support.endpoint import Answer, ChatServer

JOB = """\
recipe:
  combine: vote
  members:
{members}
endpoints:
{endpoints}
tasks:
  - {{name: sums, data: items.jsonl, prompt: "{{{{question}}}}", score: numeric, max_tokens: 16}}
splits: {{search: {items}, select: {items}, test: {items}}}
search: {{strategy: cma, trials: {trials}, seed: 3}}
selection: {{finalists: 3}}
{cache}"""


def adder(name: str, errors: float) -> Answer:
    """Return a model that adds two numbers and errs on a share of the items, on others than a model of another name."""

    def answer(prompt: str) -> str:
        right = sum(map(int, prompt.splitlines()[0].rstrip("=").split("+")))
        drawn = hashlib.sha256(f"{name} {prompt}".encode()).digest()
        wrong = drawn[0] < 256 * errors
        return f"That makes {right + 1 + drawn[1] % 9 if wrong else right}."

    return answer


def write_items(folder: Path, count: int) -> Path:
    """Write different sums."""
    rows = ({"question": f"{n}+{3 * n}=", "answer": 4 * n} for n in range(count))
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_job(
    folder: Path,
    servers: Mapping[str, ChatServer],
    *,
    trials: int = 20,
    items: int = 12,
    extra: str = "",
    each: str = "",
    cache: str = "cache: false\n",
) -> Path:
    """Write a job over servers; `each` stands in every endpoint, `extra` at the end of the job."""
    write_items(folder, 3 * items)
    members = "\n".join(f"    - {{endpoint: {name}, weight: {{low: -1, high: 1, start: 0.5}}}}" for name in servers)
    endpoints = "\n".join(
        f"  {name}: {{url: '{server.url}', model: adder-{name}, max_in_flight: 4{each}}}"
        for name, server in servers.items()
    )
    path = folder / "job.yaml"
    path.write_text(JOB.format(members=members, endpoints=endpoints, trials=trials, items=items, cache=cache) + extra, "utf-8")
    return path
