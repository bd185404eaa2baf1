"""The front: OpenAI's paths over HTTP, and what stands before an answer (keys, limits) and after it (headers, counts).

A client that goes away takes its question with it: what is asked for it is cancelled. Every refusal has the body that
OpenAI's clients read. Nothing that a client sent is logged.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from evomerge.errors import EvomergeError
from evomerge.serve.answering import Answering, Asked, Combined, Unanswerable, Unanswered
from evomerge.serve.bodies import Asking, Kind, Reply, read
from evomerge.serve.guard import Gate, Keys, Rate
from evomerge.serve.metrics import CONTENT_TYPE, Metrics
from evomerge.serve.refusals import Refusal, invalid, unavailable

T = TypeVar("T")
_GONE = 499
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes on: `rate` in requests a minute and key, `body` in bytes, `seconds` for a body to come."""

    rate: int | None = None
    in_flight: int = 64
    body: int = 1 << 20
    seconds: float = 30.0


class Front:
    """The paths of a server that answers as `name`. `local`: only requests that name this machine are taken."""

    def __init__(self, answering: Answering, name: str, keys: Sequence[str], limits: Limits, *, local: bool) -> None:
        self._answering, self._name, self._limits, self._local = answering, name, limits, local
        self._keys, self._rate, self._gate = Keys(keys), Rate(limits.rate), Gate(limits.in_flight)
        self._metrics = Metrics()
        self._begun = int(time.time())

    def app(self) -> Starlette:
        """Return the application."""
        routes = [
            Route("/v1/chat/completions", self._counted(self._chat), methods=["POST"]),
            Route("/v1/completions", self._counted(self._text), methods=["POST"]),
            Route("/v1/models", self._counted(self._models), methods=["GET"]),
            Route("/v1/models/{name:path}", self._counted(self._model), methods=["GET"]),
            Route("/health", self._health, methods=["GET"]),
            Route("/metrics", self._counted(self._told), methods=["GET"]),
        ]
        handlers = {HTTPException: _no_such_path}
        return Starlette(routes=routes, exception_handlers=handlers)  # pyright: ignore[reportArgumentType]  # handlers of HTTPException get one

    def _counted(self, handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """Return a handler whose refusals are replies, and whose replies are counted."""

        async def counted(request: Request) -> Response:
            path, begun = request.scope["route"].path, time.monotonic()
            try:
                self._check_host(request)
                reply = await handle(request)
            except Refusal as refusal:
                reply = JSONResponse(refusal.body, refusal.status, refusal.headers)
            except ClientDisconnect:
                reply = Response(status_code=_GONE)
            self._metrics.requests.add(1, path, str(reply.status_code))
            if reply.status_code == 200:
                self._metrics.seconds.observe(time.monotonic() - begun, path)
            return reply

        return counted

    def _check_host(self, request: Request) -> None:
        """Refuse, on a loopback address, what a web page makes a browser send here under another name."""
        host = request.headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self._local and name.lower() not in _LOOPBACK:
            raise Refusal(421, "this server answers on this machine's own address alone", code="wrong_host")

    async def _chat(self, request: Request) -> Response:
        return await self._completion(request, "chat")

    async def _text(self, request: Request) -> Response:
        return await self._completion(request, "text")

    async def _completion(self, request: Request, kind: Kind) -> Response:
        self._rate.count(self._holder(request))
        with self._gate.pass_through():
            asking = read(kind, await self._body(request), self._answering.default)
            if asking.model != self._name:
                raise _no_such_model(asking.model)
            combined = await self._answered(request, asking)
        self._count(combined.asked)
        if combined.missing:
            self._metrics.degraded.add(1)
        reply = Reply(asking, self._name, self._answering.fingerprint, combined)
        headers = _headers(combined)
        if asking.stream:
            headers |= {"cache-control": "no-cache", "x-accel-buffering": "no"}
            return StreamingResponse(_slowly(reply.events()), headers=headers, media_type="text/event-stream")
        return JSONResponse(reply.body(), headers=headers)

    async def _answered(self, request: Request, asking: Asking) -> Combined:
        """Return the answer, unless the client goes away before it is there."""
        try:
            return await _while_connected(request, self._answering.answer(asking.question))
        except Unanswered as nobody:
            self._count(nobody.asked)
            raise unavailable(str(nobody)) from None
        except Unanswerable as error:
            raise invalid(str(error)) from None
        except EvomergeError:
            raise unavailable("this server cannot answer now; whoever runs it finds the reason in its log") from None

    async def _body(self, request: Request) -> bytes:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(415, "send JSON, with Content-Type: application/json", code="unsupported_media_type")
        most, raw = self._limits.body, bytearray()
        try:
            async with asyncio.timeout(self._limits.seconds):
                async for part in request.stream():
                    raw += part
                    if len(raw) > most:
                        raise Refusal(413, f"the body has more than {most} bytes", code="body_too_large")
        except TimeoutError:
            raise Refusal(408, "the body did not come in time", code="timeout") from None
        return bytes(raw)

    def _holder(self, request: Request) -> int:
        return self._keys.holder(request.headers.get("authorization"))

    def _count(self, asked: Sequence[Asked]) -> None:
        metrics = self._metrics
        for one in asked:
            metrics.asked.add(1, one.name)
            metrics.tokens.add(one.usage.prompt_tokens, one.name, "prompt")
            metrics.tokens.add(one.usage.completion_tokens, one.name, "completion")
            metrics.usd.add(one.usd, one.name)
            metrics.member_seconds.add(one.seconds, one.name)
            if one.failure is not None:
                metrics.failed.add(1, one.name, one.failure)

    async def _models(self, request: Request) -> Response:
        self._holder(request)
        return JSONResponse({"object": "list", "data": [self._about()]})

    async def _model(self, request: Request) -> Response:
        self._holder(request)
        if request.path_params["name"] != self._name:
            raise _no_such_model(request.path_params["name"])
        return JSONResponse(self._about())

    def _about(self) -> dict[str, str | int]:
        return {"id": self._name, "object": "model", "created": self._begun, "owned_by": "evomerge"}

    async def _health(self, _: Request) -> Response:
        """Say that there is somebody; members are not asked for it, since that may cost money."""
        return JSONResponse({"status": "ok", "model": self._name})

    async def _told(self, request: Request) -> Response:
        self._holder(request)
        gauges = {"evomerge_requests_in_flight": float(self._gate.inside)}
        return PlainTextResponse(self._metrics.text(gauges), headers={"content-type": CONTENT_TYPE})


def _headers(combined: Combined) -> dict[str, str]:
    """Return how the answer came about: what it cost, who answered, whose reply it is, and who was missing."""
    headers = {"x-evomerge-cost-usd": f"{combined.usd:.9f}".rstrip("0").rstrip(".")}
    if combined.asked:
        headers["x-evomerge-members"] = ", ".join(combined.answered)
    if combined.answer_of is not None:
        headers["x-evomerge-answer-of"] = combined.answer_of
    if combined.missing:
        headers["x-evomerge-degraded"] = ", ".join(combined.missing)
    return headers


def _no_such_model(name: str) -> Refusal:
    return Refusal(404, f"there is no model '{name[:200]}' here; see /v1/models", param="model", code="model_not_found")


async def _no_such_path(request: Request, error: HTTPException) -> Response:
    sentence = f"{request.method} {request.url.path} is no path of this server"
    refusal = Refusal(error.status_code, sentence, code="not_found")
    return JSONResponse(refusal.body, refusal.status, error.headers)


async def _slowly(events: Iterator[bytes]) -> AsyncGenerator[bytes]:
    for event in events:
        yield event


async def _while_connected(request: Request, wanted: Awaitable[T]) -> T:
    """Return what is awaited. Raises ClientDisconnect, and cancels it, when the client goes away first."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    asking, leaving = asyncio.ensure_future(wanted), asyncio.create_task(gone())
    try:
        await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise ClientDisconnect
        return asking.result()
    finally:
        for task in (asking, leaving):
            task.cancel()
        await asyncio.gather(asking, leaving, return_exceptions=True)
