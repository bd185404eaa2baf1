"""What is said to one vLLM server over HTTP: questions, adapters in and out, calls of the worker extension.

A server that cannot be reached, or that says that its engine is broken, raises BackendError: the trial is asked again,
perhaps of a server that was started anew. There is no time-out: a request may wait in the server's queue for hours.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from evomerge.backends.api.dialects.reading import complaint_of
from evomerge.backends.api.faults import Transient
from evomerge.backends.api.http import Door, Reply
from evomerge.errors import BackendError


class Refused(Exception):
    """The server refuses what it was asked (status 400 to 499); the message is its own."""


class Link:
    """Connections to a server at `url` (without `/v1`), at most `connections` at a time. Made in a running loop."""

    def __init__(self, url: str, key: str | None, connections: int) -> None:
        self.url = url
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._key = key
        self._door = Door(connections, None)

    async def healthy(self) -> bool:
        """Return whether the server answers and its engine runs."""
        try:
            return (await self._door.get(f"{self.url}/health", self._headers)).status == 200
        except Transient:
            return False

    async def models(self) -> list[Mapping[str, Any]]:
        """Return what the server serves, as `/v1/models` has it; an adapter has a `parent`."""
        found = self._told(await self._get("/v1/models"))
        return cast("list[Mapping[str, Any]]", found.get("data", []))

    async def complete(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the reply of `/v1/completions`. Raises Refused, BackendError."""
        return self._told(await self._post("/v1/completions", body))

    async def load_adapter(self, name: str, folder: str) -> None:
        """Load an adapter from a folder that the server can read. Raises Refused, BackendError."""
        self._accepted(await self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder}))

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter. Raises Refused, BackendError."""
        self._accepted(await self._post("/v1/unload_lora_adapter", {"lora_name": name}))

    async def call(self, method: str, argument: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Call a method of the worker extension with JSON, and return what each worker returned, JSON as well.

        Raises Refused where the server offers no such calls, BackendError.
        """
        body = {"method": method, "args": [json.dumps(argument)]}
        results = self._told(await self._post("/collective_rpc", body)).get("results", [])
        return [json.loads(one) if isinstance(one, str) else one for one in cast("Sequence[Any]", results)]

    async def forget_prefixes(self) -> None:
        """Empty the prefix cache, which holds what earlier weights computed. Raises Refused, BackendError."""
        self._accepted(await self._post("/reset_prefix_cache", None))

    async def extension(self) -> str | None:
        """Return the worker extension that the server says it was started with; None where it does not tell.

        Only a server in development mode tells, and only such a one passes calls on to its workers.
        """
        try:
            found: Any = self._told(await self._get("/server_info?config_format=json"))
        except Refused:
            return None
        parallel = found.get("vllm_config", {}).get("parallel_config", {})
        return parallel.get("worker_extension_cls") if isinstance(parallel, dict) else None  # pyright: ignore[reportUnknownVariableType]  # JSON

    async def takes_adapters(self) -> bool:
        """Return whether the server loads adapters while it runs, asked by a load that names none."""
        return (await self._post("/v1/load_lora_adapter", {})).status not in (404, 405)

    async def close(self) -> None:
        """Close all connections."""
        await self._door.close()

    async def _get(self, path: str) -> Reply:
        try:
            return await self._door.get(self.url + path, self._headers)
        except Transient as fault:
            raise BackendError(f"the server at {self.url}: {fault}") from None

    async def _post(self, path: str, body: Any) -> Reply:
        try:
            return await self._door.post(self.url + path, self._headers, body)
        except Transient as fault:
            raise BackendError(f"the server at {self.url}: {fault}") from None

    def _accepted(self, reply: Reply) -> None:
        if reply.status == 200:
            return
        said = f"it answered {reply.status}: {complaint_of(reply.body)}"
        if self._key is not None:
            said = said.replace(self._key, "…")
        if 400 <= reply.status < 500:
            raise Refused(said)
        raise BackendError(f"the server at {self.url}: {said}")

    def _told(self, reply: Reply) -> Mapping[str, Any]:
        self._accepted(reply)
        try:
            found: Any = json.loads(reply.body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise BackendError(f"the server at {self.url} answered something that is no JSON object")
        return cast("Mapping[str, Any]", found)
