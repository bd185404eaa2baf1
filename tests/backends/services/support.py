"""Adapters of a very small random model, recipes of them, and services that are asked as fast as they answer."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evomerge.backends.api.client import Pace
from evomerge.backends.services.backend import ServiceBackend
from evomerge.backends.services.make import service_backend
from evomerge.backends.services.settings import ServiceSettings
from evomerge.exchange import Answer, Request
from evomerge.recipe.served import ServedAdapter, ServedInput, ServedMerge
from evomerge.testing.backends import answers
from tests.support.models import save_adapter, save_model
from tests.support.services import StandIn

TARGETS = ("q_proj", "v_proj", "o_proj", "down_proj")
PROMPTS = ("a", "sort:dbca=", "17+4=", "rev:abcdefgh=")


def write_adapters(folder: Path) -> Path:
    """Write a base and adapters: one and two of rank 3, wide of rank 5."""
    base = save_model(folder / "base", 1)
    for seed, (name, rank) in enumerate((("one", 3), ("two", 3), ("wide", 5)), start=1):
        save_adapter(folder / name, base, seed, rank=rank, targets=TARGETS)
    return folder


def adapters(folder: Path, *names: str) -> dict[str, Path]:
    return {name: folder / name for name in names or ("one", "two", "wide")}


def merge(weights: dict[str, float], method: str = "linear", **params: Any) -> ServedMerge:
    inputs = tuple(ServedInput(ServedAdapter(name), {"weight": weight}) for name, weight in weights.items())
    return ServedMerge(method, inputs, params)


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


def backend(server: StandIn, dialect: str, study: Path, **settings: Any) -> ServiceBackend:
    """Return the backend of a stand-in, whose note is in `study`."""
    written = {"kind": "service", "dialect": dialect, "url": server.url, "requests_per_minute": None}
    read = ServiceSettings.model_validate(written | settings)
    return service_backend(read, root=study, folder=study, environment={"KEY": "canary"}, pace=Pace(sleep=no_sleep))


def asked(backend: ServiceBackend, recipe: ServedMerge, requests: Sequence[Request]) -> list[Answer]:
    """Hold a recipe, ask it, and close the backend."""

    async def ask() -> list[Answer]:
        try:
            async with backend.hold(recipe) as model:
                return await answers(model, requests)
        finally:
            await backend.close()

    return asyncio.run(ask())
