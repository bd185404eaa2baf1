"""Endpoints as a backend: it holds an endpoint, and answers as that endpoint does.

An ensemble is not held: its members are, one by one, and who evaluates it combines their answers.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from evomerge.backends.api.client import Client
from evomerge.backends.api.hooks import Answers, NoAnswers, NoPurse, Purse
from evomerge.backends.api.pace import Pace
from evomerge.backends.api.settings import EndpointSettings
from evomerge.backends.in_flight import InFlight
from evomerge.backends.protocol import Placement, Unsupported
from evomerge.errors import CandidateError, ConfigError
from evomerge.exchange import Answer, Judge, Request
from evomerge.recipe.endpoints import asked_of
from evomerge.recipe.tree import Endpoint, Recipe

NO_LIKELIHOODS = (
    "an endpoint tells no likelihood of a given text, unless likelihoods: says how at the endpoint; or score "
    "by a generated answer (exact, numeric, contains, regex, f1)"
)


class ApiBackend:
    """Holds endpoints; keeps the promises of `backends.protocol.Backend`.

    `keys` are by endpoint, None where none is sent (see `keys_from`). What `answers` knows is not asked, and what is
    asked is paid from `purse`; both are closed with the backend.
    """

    def __init__(
        self,
        endpoints: Mapping[str, EndpointSettings],
        keys: Mapping[str, str | None],
        pace: Pace | None = None,
        *,
        answers: Answers | None = None,
        purse: Purse | None = None,
    ) -> None:
        self._endpoints, self._keys, self._pace = endpoints, keys, pace or Pace()
        self.answers, self.purse = answers or NoAnswers(), purse or NoPurse()
        self._clients: dict[str, Client] = {}

    @property
    def slots(self) -> int:
        """One: candidates are arithmetic on answers, and nothing is gained by several at a time."""
        return 1

    @property
    def batch_size(self) -> int | None:
        """None: a whole round is sent at once, and the limit in flight does the rest."""
        return None

    def plan(self, recipe: Recipe) -> Placement | Unsupported:
        """Say who will be asked."""
        endpoints = asked_of(recipe)
        if not endpoints:
            return Unsupported("endpoints are asked, and this recipe merges weights")
        unknown = next((endpoint.name for endpoint in endpoints if endpoint.name not in self._endpoints), None)
        if unknown is not None:
            return Unsupported(f"there is no endpoint '{unknown}'")
        named = {endpoint.name: self._endpoints[endpoint.name] for endpoint in endpoints}
        return Placement(", ".join(f"{one.model} at {one.host}" for one in named.values()), 0)

    @asynccontextmanager
    async def hold(self, recipe: Recipe) -> AsyncGenerator["EndpointModel"]:
        """Hold an endpoint. Raises CandidateError for anything else."""
        if not isinstance(recipe, Endpoint) or recipe.name not in self._endpoints:
            raise CandidateError("only the endpoints of the job can be asked")
        name = recipe.name
        if name not in self._clients:
            self._clients[name] = Client(
                name, self._endpoints[name], self._keys[name], self._pace, self.answers, self.purse
            )
        model = EndpointModel(self._clients[name], self._endpoints[name])
        try:
            yield model
        finally:
            await model.stop()

    async def close(self) -> None:
        """Close all connections. Calling it twice is harmless."""
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.close()
        self.answers.close()
        self.purse.close()


class EndpointModel:
    """One endpoint that can be asked, until `hold` is left."""

    def __init__(self, client: Client, settings: EndpointSettings) -> None:
        self._under_way = InFlight(client.ask, settings.max_in_flight)
        self._judges = settings.likelihoods is not None

    def answer(self, requests: Sequence[Request]) -> AsyncIterator[tuple[int, Answer]]:
        """Answer the requests; yields (index, answer) as answers come.

        Raises ConfigError for likelihoods where the endpoint's settings do not say how it tells them.
        """
        if not self._judges and any(isinstance(request, Judge) for request in requests):
            raise ConfigError(NO_LIKELIHOODS)
        return self._under_way.answers(requests)

    async def stop(self) -> None:
        """Cancel whatever is still asked."""
        await self._under_way.stop()


def keys_from(endpoints: Mapping[str, EndpointSettings], environment: Mapping[str, str]) -> dict[str, str | None]:
    """Return the key of each endpoint. Raises MissingKey for the first whose variable is not set or holds no key."""
    return {name: _key(name, endpoint.api_key_env, environment) for name, endpoint in endpoints.items()}


def _key(name: str, variable: str | None, environment: Mapping[str, str]) -> str | None:
    if variable is None:
        return None
    key = environment.get(variable, "").strip()
    if not key:
        raise MissingKey(name, f"the environment variable {variable} is not set; put the endpoint's key in it")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise MissingKey(name, f"the environment variable {variable} holds characters that no key has; look at it")
    return key


class MissingKey(ConfigError):
    """An endpoint's key is not there; `endpoint` is its name in the job, `sentence` says what to do."""

    def __init__(self, endpoint: str, sentence: str) -> None:
        super().__init__(f"endpoints.{endpoint}.api_key_env: {sentence}")
        self.endpoint = endpoint
        self.sentence = sentence
