"""Adapters beside one base: how many items a second one slot and eight slots answer, in turn.

Candidates of 8 items and 8 output tokens each, all ready at the same time as they are within a generation. Both servers
may batch the same number of sequences; what differs is how many candidates share a batch.
"""

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median

from benchmarks.merge.tables import ratio, table
from benchmarks.vllm.models import Models
from evomerge.backends.protocol import Backend
from evomerge.backends.vllm.make import vllm_backend
from evomerge.backends.vllm.settings import VllmSettings
from evomerge.backends.weights.store import WeightStore
from evomerge.exchange import Generate, Sampling
from evomerge.recipe.tree import Input, Merge, Source, WeightRecipe

SLOTS = (1, 8)
CANDIDATES = 16
ITEMS = 8
TOKENS = 8
SEQUENCES = 64

_ITEMS = [Generate(f"Count: {number}, {number + 1},", Sampling(max_tokens=TOKENS)) for number in range(ITEMS)]


@dataclass
class Batches:
    """Seconds that all candidates took, by slots; one of each for a round."""

    passed: dict[int, list[float]] = field(default_factory=lambda: {slots: [] for slots in SLOTS})
    tokens: dict[int, list[int]] = field(default_factory=lambda: {slots: [] for slots in SLOTS})


async def measured(made: Models, rounds: int, dtype: str) -> Batches:
    """Measure both numbers of slots in turn, `rounds` times after a round that is not counted."""
    store, found = WeightStore(), Batches()
    async with AsyncExitStack() as stack:
        backends: dict[int, Backend] = {}
        for slots in SLOTS:
            backends[slots] = _backend(store, made, slots, dtype)
            stack.push_async_callback(backends[slots].close)
        for number in range(rounds + 1):
            recipes = [_candidate(store, made, number * CANDIDATES + index) for index in range(CANDIDATES)]
            for slots, backend in backends.items():
                begun = time.perf_counter()
                tokens = sum(await asyncio.gather(*(_answered(backend, recipe) for recipe in recipes)))
                if number:
                    found.passed[slots].append(time.perf_counter() - begun)
                    found.tokens[slots].append(tokens)
    return found


def shown(found: Batches, dtype: str) -> str:
    """Return what was measured in Markdown."""
    rows: list[list[str]] = []
    for slots, passed in found.passed.items():
        rates = sorted(CANDIDATES * ITEMS / one for one in passed)
        written = min(found.tokens[slots]) / (CANDIDATES * ITEMS)
        rows.append([str(slots), f"{median(rates):.1f} ({rates[0]:.1f} to {rates[-1]:.1f})", f"{written:.1f}"])
    one, eight = (found.passed[slots] for slots in SLOTS)
    words = (
        f"{CANDIDATES} candidates (adapters of rank 8 on the attention) of {ITEMS} items and {TOKENS} tokens in "
        f"{dtype}, max-num-seqs {SEQUENCES}, {len(one)} rounds: {SLOTS[1]} slots answer {ratio(one, eight)} times as "
        f"many items a second as {SLOTS[0]}."
    )
    return f"{words}\n\n{table(['slots', 'items a second', 'tokens an item'], rows)}"


async def _answered(backend: Backend, recipe: WeightRecipe) -> int:
    """Hold a recipe and ask all items; return how many tokens it wrote. Raises SystemExit for an answer that failed."""
    tokens = 0
    async with backend.hold(recipe) as model:
        async for _, answer in model.answer(_ITEMS):
            if answer.failure is not None:
                sys.exit(f"An item was not answered: {answer.failure}")
            tokens += answer.usage.completion_tokens
    return tokens


def _backend(store: WeightStore, made: Models, slots: int, dtype: str) -> Backend:
    said = {"enforce-eager": True, "max-num-seqs": SEQUENCES}
    settings = VllmSettings.model_validate({"kind": "vllm", "slots": slots, "dtype": dtype, "args": said})
    folder = made.folder / f"slots-{slots}"
    return vllm_backend(settings, store, [_candidate(store, made, 0)], root=made.folder, folder=folder, environment={})


def _candidate(store: WeightStore, made: Models, number: int) -> WeightRecipe:
    """Return a recipe of one adapter with a weight of its own."""
    adapter = made.adapters[number % len(made.adapters)]
    item = Input(Source(str(adapter)), {"weight": 0.5 + 0.001 * number})
    return store.resolve(Merge("task_arithmetic", (item,), Source(str(made.base))), made.folder)
