"""A small real server in the dialects of endpoints, on loopback, with the answers and faults of a test.

It speaks HTTP over sockets from threads of its own, so that clients in this process and in others can ask it. It counts
what it was asked, what it answered, and what it would bill. `chaos` has faults at random for it.
"""

import json
import select
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
    """What the server sends.

    `promised` bytes more are announced than sent; `reset` closes without a word; `hang` sends nothing until a client
    is gone, and `late` sends only then. `bills` are the tokens that were read and written where the body tells none.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    promised: int = 0
    reset: bool = False
    hang: bool = False
    late: bool = False
    bills: tuple[int, int] | None = None

    @property
    def billed(self) -> tuple[int, int]:
        """The tokens that are billed for it, read and written."""
        if self.bills is not None:
            return self.bills
        told = self.body.get("usage") if self.status == 200 and isinstance(self.body, dict) else None
        told = told or {}
        read = told.get("prompt_tokens", told.get("input_tokens", 0))
        return read, told.get("completion_tokens", told.get("output_tokens", 0))

    @property
    def whole(self) -> bool:
        """Whether it is an answer that reaches who waits long enough."""
        return self.status == 200 and not (self.reset or self.promised or self.hang or self.late)


def chat(text: str | None, finish: str = "stop") -> Reply:
    """Return a reply that holds an answer."""
    message = {"role": "assistant", "content": text}
    return Reply(body={"choices": [{"message": message, "finish_reason": finish}], "usage": usage(text)})


def usage(text: str | None) -> dict[str, int]:
    """Return what an answer takes here: 7 tokens read, and one written for each character."""
    return {"prompt_tokens": 7, "completion_tokens": len(text or "")}


def completion(text: str) -> Reply:
    """Return a reply that holds an answer in the dialect of older completions."""
    return Reply(body={"choices": [{"index": 0, "text": text, "finish_reason": "stop"}], "usage": usage(text)})


def message(text: str, stop: str = "end_turn") -> Reply:
    """Return a reply that holds an answer in the dialect of messages."""
    told = {"input_tokens": 7, "output_tokens": len(text)}
    return Reply(body={"content": [{"type": "text", "text": text}], "stop_reason": stop, "usage": told})


SPOKEN: Mapping[str, Callable[[str], Reply]] = {
    "/v1/chat/completions": chat,
    "/v1/completions": completion,
    "/v1/messages": message,
}
"""How a text is answered, by path."""

Answer = Callable[[str], "str | Reply"]
"""What to answer to a prompt: a text, or a whole reply."""


class ChatServer:
    """A running server. `asked` counts prompts by their text, `answered` those whose reply was sent whole.

    `read` and `written` are the tokens of all answers that were made, whether they arrived or not.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self.read = self.written = 0
        self.closing = threading.Event()
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

    def wait_until_idle(self) -> None:
        """Return when nothing that was asked is still worked on."""
        with self._change:
            assert self._change.wait_for(lambda: self._at_once == 0, timeout=60)

    def wait_until_asked(self, *prompts: str) -> None:
        """Return when each of these was asked."""
        with self._change:
            assert self._change.wait_for(lambda: all(self.asked[prompt] for prompt in prompts), timeout=60)

    def close(self) -> None:
        """Stop, whatever still waits."""
        self.closing.set()
        self.hold_after(None)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve(self, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> Reply:
        """Answer one request, when it may be."""
        prompt = prompt_of(body)
        with self._change:
            self.asked[prompt] += 1
            self.bodies.append(body)
            self.headers.append({name.lower(): value for name, value in headers.items()})
            self.keys.append(headers.get("Authorization"))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self._change.notify_all()
            self._change.wait_for(lambda: self._left is None or self._left > 0)
            if self._left is not None:
                self._left -= 1
        found = self.answer(prompt)
        return SPOKEN.get(path, chat)(found) if isinstance(found, str) else found

    def made(self, reply: Reply) -> None:
        """Count the tokens of a reply."""
        with self._change:
            self.read += reply.billed[0]
            self.written += reply.billed[1]

    def served(self, prompt: str, whole: bool) -> None:
        """Count a reply that was sent, or was not."""
        with self._change:
            self._at_once -= 1
            self.answered[prompt] += whole
            self._change.notify_all()


def prompt_of(body: Mapping[str, Any]) -> str:
    """Return what a request asks: the last message, or the plain text; of several texts the first."""
    if "messages" in body:
        return body["messages"][-1]["content"]
    prompt = body["prompt"]
    return prompt if isinstance(prompt, str) else prompt[0]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    chat: ChatServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed or give up are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server, whole = cast(_Server, self.server).chat, False
        reply = server.serve(self.path, body, dict(self.headers.items()))
        try:
            if self.path not in SPOKEN:
                reply = Reply(404, {"error": {"message": f"no such path: {self.path}"}})
            server.made(reply)
            if reply.hang or reply.late:
                self._wait_until_alone(server)
            if not reply.hang:
                self._send(reply)
            whole = reply.whole
        except OSError:
            self.close_connection = True
        finally:
            server.served(prompt_of(body), whole)

    def _wait_until_alone(self, server: ChatServer) -> None:
        """Return when the client has closed the connection, or the server is to stop."""
        self.close_connection = True
        while not server.closing.is_set() and not select.select([self.connection], [], [], 0.05)[0]:
            pass

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
        self.close_connection = self.close_connection or reply.promised > 0

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
