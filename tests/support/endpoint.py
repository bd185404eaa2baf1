"""A small real server in the dialect of OpenAI's chat completions, on loopback, with the answers and faults of a test.

It speaks HTTP over sockets from threads of its own, so that clients in this process and in others can ask it. It counts
what it was asked and what it answered.
"""

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast


@dataclass(frozen=True)
class Reply:
    """What the server sends. `promised` bytes more are announced than sent; `reset` closes without a word."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    promised: int = 0
    reset: bool = False


def chat(text: str | None, finish: str = "stop") -> Reply:
    """Return a reply that holds an answer."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 7, "completion_tokens": len(text or "")}
    return Reply(body={"choices": [{"message": message, "finish_reason": finish}], "usage": usage})


Answer = Callable[[str], "str | Reply"]
"""What to answer to a prompt: a text, or a whole reply."""


class ChatServer:
    """A running server. `asked` counts prompts by their text, `answered` those whose reply was sent whole."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.most_at_once = 0
        self._at_once = 0
        self._left: int | None = None
        self._change = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.chat = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address that a job names."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def hold_after(self, answers: int | None) -> None:
        """Answer so many more requests and let all others wait; None answers everything again."""
        with self._change:
            self._left = answers
            self._change.notify_all()

    def wait_until_holding(self) -> None:
        """Return when the server has answered what it may, and others wait."""
        with self._change:
            assert self._change.wait_for(lambda: self._left == 0 and self._at_once > 0, timeout=60)

    def close(self) -> None:
        """Stop, whatever still waits."""
        self.hold_after(None)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve(self, body: dict[str, Any], key: str | None) -> Reply:
        """Answer one request, when it may be."""
        prompt = body["messages"][-1]["content"]
        with self._change:
            self.asked[prompt] += 1
            self.bodies.append(body)
            self.keys.append(key)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self._change.notify_all()
            self._change.wait_for(lambda: self._left is None or self._left > 0)
            if self._left is not None:
                self._left -= 1
        found = self.answer(prompt)
        return chat(found) if isinstance(found, str) else found

    def served(self, prompt: str, whole: bool) -> None:
        """Count a reply that was sent, or was not."""
        with self._change:
            self._at_once -= 1
            self.answered[prompt] += whole
            self._change.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    chat: ChatServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed or give up are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        server, whole = cast(_Server, self.server).chat, False
        reply = server.serve(body, self.headers.get("Authorization"))
        try:
            if self.path != "/v1/chat/completions":
                reply = Reply(404, {"error": {"message": f"no such path: {self.path}"}})
            self._send(reply)
            whole = reply.status == 200 and not (reply.reset or reply.promised)
        except OSError:
            self.close_connection = True
        finally:
            server.served(prompt, whole)

    def _send(self, reply: Reply) -> None:
        if reply.reset:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(content) + reply.promised)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
        self.close_connection = reply.promised > 0

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read what the program prints, not what the server would."""


@contextmanager
def chat_server(answer: Answer) -> Generator[ChatServer]:
    """Run a server while inside."""
    server = ChatServer(answer)
    try:
        yield server
    finally:
        server.close()
