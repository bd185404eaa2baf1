"""From a job's settings to servers that hold its recipes: which Python, which models, how many; what `check` says."""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from evomerge.backends.pool import Pool
from evomerge.backends.protocol import Backend, Placement, Unsupported
from evomerge.backends.vllm.adapters import AdapterRoom
from evomerge.backends.vllm.backend import VllmBackend
from evomerge.backends.vllm.fitting import fits
from evomerge.backends.vllm.gpus import has_gpu, where
from evomerge.backends.vllm.remote import Offer, Remote, offered
from evomerge.backends.vllm.residence import Wish, plan
from evomerge.backends.vllm.server import Adapters, Server
from evomerge.backends.vllm.serving import NO_LIKELIHOODS, WIDEST, Serving, serving, without_head
from evomerge.backends.vllm.settings import VllmSettings
from evomerge.backends.vllm.wire import to_wire
from evomerge.backends.weights.artifact import AdapterArtifact, Artifact
from evomerge.backends.weights.store import WeightStore
from evomerge.backends.weights.tensors import read_json
from evomerge.errors import BackendError, ConfigError
from evomerge.recipe.tree import WeightRecipe, sources

_KEPT: Mapping[Wish, str] = {
    "auto": "GPU memory where they fit, else the host's",
    "gpu": "GPU memory",
    "pinned": "pinned memory of the host",
    "files": "mapped files",
}


def vllm_backend(
    settings: VllmSettings,
    store: WeightStore,
    recipes: Sequence[WeightRecipe],
    *,
    root: Path,
    folder: Path,
    environment: Mapping[str, str],
    judged: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Backend:
    """Return the backend for recipes without holes, of which the first is typical of a search. Nothing is started.

    `root` is the job's folder, `folder` the study's, where logs go; `judged` says whether likelihoods will be asked
    for; `tell` hears what servers do. Raises ConfigError.
    """
    what = serving(store, recipes)
    if settings.proxy is not None:
        what = without_head(what)
    if judged and what.changes_head:
        raise ConfigError(f"backend: {NO_LIKELIHOODS}")
    opening = None if what.adapters else {"recipe": to_wire(recipes[0]), "experts": settings.experts}
    key = None if settings.api_key_env is None else environment.get(settings.api_key_env, "").strip()
    if settings.url is not None:
        if key == "":
            raise ConfigError(
                f"backend.api_key_env: the environment variable {settings.api_key_env} is not set; put the server's "
                "key in it"
            )
        planned = _OfOffer(settings.url, key, store, what)
        host = Remote(settings.url, key, settings.max_in_flight)
        room = AdapterRoom(folder.absolute() / "adapters")
        return VllmBackend(
            host,
            store,
            what,
            slots=settings.slots,
            width=settings.max_in_flight,
            room=room,
            planned=planned,
            opening=opening,
        )
    python = Path(sys.executable) if settings.python is None else root / Path(settings.python).expanduser()
    if not python.is_file():
        raise ConfigError(f"backend.python: there is no file {python}; name the Python that has vLLM")
    dtype = settings.dtype if settings.dtype != "auto" else _dtype(what.folder)
    adapters = Adapters(settings.slots, what.rank, what.kinds) if what.adapters else None
    resolved = settings.model_copy(update={"dtype": dtype})
    backends: list[Backend] = []
    for number in range(settings.servers):
        log = folder.absolute() / f"vllm-{number + 1}.log"
        server = Server(
            resolved, python, what.folder, name=f"vLLM {number + 1}", log=log, number=number, adapters=adapters,
            tell=tell,
        )  # fmt: skip
        backends.append(
            VllmBackend(
                server,
                store,
                what,
                slots=settings.slots,
                width=settings.max_in_flight,
                room=AdapterRoom(None),
                planned=_OfServer(store, what, dtype, settings.experts),
                opening=opening,
            )
        )
    return backends[0] if len(backends) == 1 else Pool(backends)


class _OfServer:
    """Says how a server of our own holds a recipe."""

    def __init__(self, store: WeightStore, what: Serving, dtype: str, experts: Wish) -> None:
        self._store, self._what, self._dtype = store, what, dtype
        self._experts: Wish = experts

    @cached_property
    def _where(self) -> str:
        return where()

    def __call__(self, recipe: WeightRecipe) -> Placement | Unsupported:
        artifact = self._store.artifact(recipe)
        refused = _refused(artifact, self._what)
        if refused is not None:
            return Unsupported(refused)
        if isinstance(artifact, AdapterArtifact):
            words = f"an adapter of rank {artifact.rank}, not merged, beside its base in a vLLM server on {self._where}"
            return Placement(f"{words}, in {self._dtype}", artifact.size, self._dtype)
        opened = {source.model: self._store.opened(source) for source in sources(recipe)}
        sizes = {name: sum(tensor.size for tensor in model.stored.values()) for name, model in opened.items()}
        read = sum(sizes.values())
        if not has_gpu():
            plan(sizes, None, 0, self._experts)
        kept = _KEPT[self._experts] if has_gpu() else _KEPT["files"]
        words = f"a checkpoint, merged from {len(sizes)} models of {read / 1e6:,.1f} MB (in {kept})"
        words += f" into a running vLLM server on {self._where}, in {self._dtype}"
        return Placement(words, artifact.size, self._dtype)


class _OfOffer:
    """Says how a server that somebody else runs holds a recipe; what it offers is asked once."""

    def __init__(self, url: str, key: str | None, store: WeightStore, what: Serving) -> None:
        self._url, self._key, self._store, self._what = url, key, store, what
        self._offer: Offer | None = None

    def __call__(self, recipe: WeightRecipe) -> Placement | Unsupported:
        artifact = self._store.artifact(recipe)
        refused = _refused(artifact, self._what)
        if refused is not None:
            return Unsupported(refused)
        try:
            offer = self._asked()
        except BackendError as error:
            return Unsupported(str(error))
        if isinstance(artifact, AdapterArtifact):
            if not offer.adapters:
                return Unsupported(
                    f"the server at {self._url} loads no adapters while it runs; start it with --enable-lora and "
                    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
                )
            words = f"an adapter of rank {artifact.rank} beside {offer.model} at {self._url}"
            return Placement(words, artifact.size)
        if not offer.whole_models:
            only = "it takes adapters only" if offer.adapters else "it takes neither adapters nor whole models"
            return Unsupported(
                f"the server at {self._url} cannot be given merged weights: {only}; start it with evomerge's worker "
                "extension, as docs/vllm.md says, or leave url out and let evomerge start one"
            )
        return Placement(f"a checkpoint, merged into {offer.model} at {self._url}", artifact.size)

    def _asked(self) -> Offer:
        if self._offer is None:
            with ThreadPoolExecutor(1) as thread:  # plans are made within event loops as well
                self._offer = thread.submit(lambda: asyncio.run(offered(self._url, self._key))).result()
        return self._offer


def _refused(artifact: Artifact, what: Serving) -> str | None:
    """Return why a server that serves `what` can hold no such artifact."""
    if isinstance(artifact, AdapterArtifact):
        if artifact.rank > WIDEST:
            return f"the adapter is {artifact.rank} wide, and vLLM takes {WIDEST} at most; leave models out or refactor"
        return None
    return fits(artifact, what.config or read_json(what.folder / "config.json"))


def _dtype(folder: Path) -> str:
    """Return what a model computes in where nobody says: float32 on a CPU, and elsewhere what it is stored in."""
    if not has_gpu():
        return "float32"
    config = read_json(folder / "config.json")
    inner = cast("Mapping[str, Any]", config.get("text_config") or {})
    found = next((one for of in (config, inner) for key in ("dtype", "torch_dtype") if (one := of.get(key))), None)
    return cast(str, found) if found in ("float32", "bfloat16", "float16") else "bfloat16"
