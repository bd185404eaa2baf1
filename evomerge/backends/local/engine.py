"""What the backend's one thread does: it puts a recipe's tensors in the model and answers requests with it.

Synchronous, and used by one thread alone. Failures of torch become BackendError, recipes that cannot be held or asked
CandidateError; a request that cannot be answered (its prompt is too long) is an answer with a failure.
"""

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from evomerge.backends.local.backend import UNCONSTRAINED
from evomerge.backends.local.generating import Row, generate
from evomerge.backends.local.judging import judge
from evomerge.backends.local.lowrank import Attached
from evomerge.backends.local.resident import Architecture, Causal, Resident
from evomerge.backends.local.work import Running
from evomerge.backends.protocol import Placement
from evomerge.backends.settings import LocalSettings
from evomerge.backends.text import Split, Text
from evomerge.backends.weights.artifact import AdapterArtifact, Artifact, CheckpointArtifact
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import BackendError, ConfigError
from evomerge.exchange import Answer, Failure, Generate, Judge, Request, Usage
from evomerge.recipe.tree import WeightRecipe, recipe_id

_SMALL = 10_000_000
"""Below this many parameters a second thread costs more than it brings."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Emit = Callable[[tuple[int, Answer]], None]
"""Takes the index of a request and its answer."""


@dataclass(frozen=True, slots=True)
class _Folder:
    """What a model folder says besides its weights."""

    architecture: Architecture
    text: Text
    parameters: int


@dataclass(slots=True)
class _Held:
    """The recipe that requests go to: its folder, and the model with its weights."""

    folder: _Folder
    causal: Causal
    attached: Attached | None = None


class Engine:
    """One model in memory; `place` makes it a recipe's, `answer` asks it, `release` takes an adapter off again."""

    def __init__(self, settings: LocalSettings, store: WeightStore) -> None:
        """Find the device. Raises BackendError where the one asked for is not there."""
        self._settings, self._store = settings, store
        self._device = _device(settings.device)
        self._threads = torch.get_num_threads()
        self._folders: dict[tuple[Path, Path, str | None], _Folder] = {}
        self._resident: Resident | None = None
        self._held: _Held | None = None

    def plan(self, recipe: WeightRecipe) -> Placement:
        """Return how a recipe would be held. Raises what the store raises, and SourceError."""
        artifact = self._store.artifact(recipe)
        folder = self._opened(artifact)
        dtype = self._dtype(folder.architecture)
        what, weights = "a checkpoint", folder.parameters * dtype.itemsize
        if isinstance(artifact, AdapterArtifact):
            what, weights = f"an adapter of rank {artifact.rank}, not merged, on a base", weights + artifact.size
        name = str(dtype).removeprefix("torch.")
        summary = f"{what} of {folder.parameters / 1e6:,.1f}M parameters in {name} on {self._device}, in this process"
        return Placement(summary, weights + self._store.memory(recipe), name)

    @torch.inference_mode()
    def place(self, recipe: WeightRecipe, running: Running) -> None:
        """Make the model the recipe's. Raises CandidateError, BackendError, SourceError, or Stopped."""
        self.release()
        with _failures():
            artifact = self._store.artifact(recipe)
            folder = self._opened(artifact)
            match artifact:
                case CheckpointArtifact():
                    self._held = _Held(folder, self._written(folder, recipe, running))
                case AdapterArtifact():
                    causal = self._written(folder, artifact.base, running)
                    self._held = _Held(folder, causal, Attached(causal.model, self._store.low_rank(recipe)))

    @torch.inference_mode()
    def answer(self, requests: Sequence[Request], emit: Emit, running: Running) -> None:
        """Answer one batch, each request once: first all that is judged, in one pass, then what is generated.

        Raises CandidateError where the model gives no numbers, BackendError, ConfigError for messages without a chat
        template, or Stopped.
        """
        if self._held is None:
            raise BackendError("no recipe is held, so there is nothing to ask")
        with _failures():
            numbered = list(enumerate(requests))
            _judge(self._held, [(at, one) for at, one in numbered if isinstance(one, Judge)], emit, running)
            _generate(self._held, [(at, one) for at, one in numbered if isinstance(one, Generate)], emit, running)

    def release(self) -> None:
        """Take an adapter off; the weights stay for the next recipe. Calling it twice is harmless."""
        if self._held is not None and self._held.attached is not None:
            self._held.attached.remove()
        self._held = None

    def _written(self, folder: _Folder, recipe: WeightRecipe, running: Running) -> Causal:
        """Return the model with the recipe's tensors in it; a new one where they need another architecture."""
        if self._resident is None or self._resident.architecture.identity != folder.architecture.identity:
            self._resident = None  # its memory is free before the next one takes some
            if self._device.type == "cpu":
                torch.set_num_threads(self._settings.threads or (1 if folder.parameters < _SMALL else self._threads))
            self._resident = Resident(folder.architecture, self._dtype(folder.architecture), self._device)
        return self._resident.put(recipe_id(recipe), lambda: _watched(self._store.tensors(recipe), running))

    def _opened(self, artifact: Artifact) -> _Folder:
        config = artifact.config if isinstance(artifact, CheckpointArtifact) else None
        key = (artifact.skeleton, artifact.behaviour, None if config is None else json.dumps(config, sort_keys=True))
        if key not in self._folders:
            architecture = Architecture(artifact.skeleton, config, artifact.behaviour)
            self._folders[key] = _Folder(architecture, Text(artifact.behaviour), architecture.parameters())
        return self._folders[key]

    def _dtype(self, architecture: Architecture) -> torch.dtype:
        if self._settings.dtype == "auto":
            return torch.float32 if self._device.type == "cpu" else architecture.stored_dtype
        return _DTYPES[self._settings.dtype]


def _judge(held: _Held, requests: Sequence[tuple[int, Judge]], emit: Emit, running: Running) -> None:
    asked: list[tuple[int, list[Split]]] = []
    for index, request in requests:
        splits = [held.folder.text.split(request.prompt, continuation) for continuation in request.continuations]
        refusal = _not_judged(splits, held.folder.architecture.positions)
        if refusal is None:
            asked.append((index, splits))
        else:
            emit((index, Answer(failure=refusal)))
    likelihoods = iter(judge(held.causal, [split for _, splits in asked for split in splits], running))
    for index, splits in asked:
        read = sum(len(split.ids) for split in splits)
        emit((index, Answer(likelihoods=tuple(next(likelihoods) for _ in splits), usage=Usage(read, 0))))


def _not_judged(splits: Sequence[Split], positions: int | None) -> Failure | None:
    for split in splits:
        if split.start == 0 and split.ids:
            return Failure("prompt", "nothing stands before the continuation; give the task a prompt")
        if positions is not None and len(split.ids) > positions:
            return _too_long("prompt and continuation", len(split.ids), positions)
    return None


def _generate(held: _Held, requests: Sequence[tuple[int, Generate]], emit: Emit, running: Running) -> None:
    text, architecture = held.folder.text, held.folder.architecture
    rows: list[Row] = []
    for index, request in requests:
        if request.sampling.choices or request.sampling.schema is not None:
            raise ConfigError(UNCONSTRAINED)
        prompt, most = text.prompt(request.prompt), request.sampling.max_tokens
        room = most if architecture.positions is None else architecture.positions - len(prompt)
        if not prompt:
            emit((index, Answer(failure=Failure("prompt", "the prompt has no tokens; give the task a prompt"))))
        elif architecture.positions is not None and room < 1:
            emit((index, Answer(failure=_too_long("the prompt", len(prompt), architecture.positions))))
        elif most < 1:
            emit((index, Answer(text="", finish="length", usage=Usage(len(prompt), 0))))
        else:
            rows.append(Row(index, prompt, request.sampling, min(most, room)))
    if not rows:
        return
    ends = architecture.ends if text.end is None else architecture.ends | {text.end}
    for index, answer in generate(held.causal, text, rows, ends, running):
        emit((index, answer))


def _too_long(what: str, tokens: int, positions: int) -> Failure:
    return Failure("context", f"{what} takes {tokens} tokens, where the model has {positions} positions")


def _watched(tensors: Iterator[tuple[str, Tensor]], running: Running) -> Iterator[tuple[str, Tensor]]:
    for pair in tensors:
        running()
        yield pair


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there[device.type]:
        raise BackendError(f"backend.device is {name}, which torch does not find here; use `auto` or `cpu`")
    return device


@contextmanager
def _failures() -> Generator[None]:
    """Turn what torch raises into BackendError: the recipe is not to blame, and may be asked again."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise BackendError(
                "memory ran out while the model was held or asked; lower backend.batch_size, or compute in bfloat16"
            ) from error
        raise BackendError(f"torch failed ({(str(error).strip() or type(error).__name__).splitlines()[0]})") from error
