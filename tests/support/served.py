"""A served model in a process of its own, as a user starts it, and a plain client of it."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.endpoint import ChatServer

RECIPE = """\
recipe:
  combine: {combine}
  members:
{members}
endpoints:
{endpoints}
answers: {answers}
"""


def write_recipe(
    folder: Path,
    servers: Mapping[str, ChatServer],
    *,
    combine: str = "vote",
    params: Mapping[str, str] | None = None,
    each: str = "",
    answers: str = "{equal: numeric, max_tokens: 16}",
) -> Path:
    """Write an ensemble as a study exports it; `params` are those of a member, `each` stands in every endpoint."""
    members = "\n".join(f"    - {{endpoint: {name}{(params or {}).get(name, '')}}}" for name in servers)
    endpoints = "\n".join(
        f"  {name}: {{url: '{server.url}', model: model-{name}, usd_per_mtok: [1, 2]{each}}}"
        for name, server in servers.items()
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(combine=combine, members=members, endpoints=endpoints, answers=answers), "utf-8")
    return path


@dataclass(frozen=True)
class Got:
    """A reply: status, headers in small letters, and the body as text."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.text)

    @property
    def code(self) -> str:
        """The code of an error in OpenAI's form, of which the keys are checked."""
        error = self.json["error"]
        assert sorted(error) == ["code", "message", "param", "type"]
        assert error["message"]
        assert error["type"]
        return error["code"]


class Served:
    """A running server; `url` is the address that it printed, `said` what it printed before."""

    def __init__(self, process: "subprocess.Popen[str]", url: str, said: str) -> None:
        self.process, self.url, self.said = process, url, said

    @property
    def host(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Got:
        """Send one request; a body that is no text or bytes is sent as JSON. Headers have _ for -."""
        connection = http.client.HTTPConnection(self.host, timeout=60)
        try:
            sent = body if isinstance(body, str | bytes | None) else json.dumps(body)
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            kind = {} if body is None else {"content-type": "application/json"}
            connection.request(method, path, sent, kind | given)
            reply = connection.getresponse()
            found = {name.lower(): value for name, value in reply.getheaders()}
            return Got(reply.status, found, reply.read().decode())
        finally:
            connection.close()

    def chat(self, prompt: str, *, model: str = "ensemble", **keys: Any) -> Got:
        """Ask one question in a chat."""
        return self.ask("POST", "/v1/chat/completions", chat(prompt, model=model, **keys))

    def counted(self, name: str) -> dict[str, float]:
        """Return the values of a metric by its labels, as they are written."""
        found: dict[str, float] = {}
        for line in self.ask("GET", "/metrics").text.splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name:
                found[series.partition("{")[2].removesuffix("}")] = float(value)
        return found

    def terminate(self) -> tuple[int, str]:
        """Ask it to stop; return its exit code and what it said of errors."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


def chat(prompt: str, *, model: str = "ensemble", **keys: Any) -> dict[str, Any]:
    """Return the body of a chat with one message."""
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **keys}


@contextmanager
def served(*words: str | Path, **environment: str) -> Generator[Served]:
    """Run `evomerge serve` on a free port while inside; afterwards it ended well, unless it was ended before."""
    process = subprocess.Popen(
        [sys.executable, "-m", "evomerge", "serve", *map(str, words), "--port", "0"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | environment,
    )  # fmt: skip
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("serving on "):
            break
    else:
        _, err = process.communicate(timeout=60)
        raise AssertionError(f"the server ended with {process.returncode}:\n{said}{err}")
    server = Served(process, line.split()[2], said)
    try:
        yield server
    finally:
        ended = process.poll() is not None
        code, err = server.terminate()
        assert ended or (code, err) == (0, ""), err
