"""Exporting: a recipe's model as a folder that transformers or peft load, with the recipe, and a model card.

Tensors are those that were scored, streamed one at a time. The folder appears whole or not at all: it is written beside
its place and renamed; a folder that already holds something is never touched, and a disk too small is noticed before
anything is written.
"""

import json
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evomerge.backends.weights.adapter_folder import write_adapter
from evomerge.backends.weights.artifact import AdapterArtifact, Artifact, CheckpointArtifact
from evomerge.backends.weights.fingerprint import BEHAVIOUR
from evomerge.backends.weights.models import module_of
from evomerge.backends.weights.store import WeightStore
from evomerge.backends.weights.tensors import read_json
from evomerge.backends.weights.words import write_words
from evomerge.backends.weights.writing import SHARD_BYTES, write_model
from evomerge.errors import ConfigError
from evomerge.recipe.tree import WeightRecipe

_MARGIN = 1 << 20
_OF_MODEL = ("config.json", "generation_config.json")
_OF_TOKENIZER = tuple(name for name in BEHAVIOUR if name not in _OF_MODEL)
_SCRUBBED = (*_OF_MODEL, "tokenizer_config.json")
_PATHS = ("_name_or_path", "name_or_path")


def free_bytes(folder: Path) -> int:
    """Return the bytes that are free where a folder is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def export(
    store: WeightStore,
    recipe: WeightRecipe,
    out: Path,
    *,
    card: str = "",
    durable: bool = True,
    shard_bytes: int = SHARD_BYTES,
    free: Callable[[Path], int] = free_bytes,
) -> Artifact:
    """Write the model of a resolved recipe without holes into `out`, and return what it is.

    A checkpoint holds the config, generation config, tokenizer and chat template of its base (or first model), an
    adapter the base's tokenizer and chat template. Both hold recipe.yaml, README.md (with `card`, Markdown, at its
    end), and mergekit.yaml where mergekit can say the same. `free` tells the bytes that are free for a folder. Only if
    `durable`, all of it is on the disk when this returns: somebody is about to note down that it is there. Raises
    ConfigError when `out` is taken or the disk too full, CandidateError when the recipe cannot be computed.
    """
    out = out.absolute()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out} exists already; choose another folder, or remove it first")
    artifact = store.artifact(recipe)
    names = _OF_TOKENIZER if isinstance(artifact, AdapterArtifact) else (*_OF_MODEL, *_OF_TOKENIZER)
    folders = {name: artifact.skeleton if name == "config.json" else artifact.behaviour for name in names}
    copied = [file for name, folder in folders.items() if (file := folder / name).is_file()]
    needed = artifact.size + sum(file.stat().st_size for file in copied) + _MARGIN
    if (there := free(out)) < needed:
        raise ConfigError(
            f"{out}: the export needs {needed} bytes and {there} are free; free some, or choose another disk"
        )
    beside = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    try:
        beside.mkdir(parents=True)
        changed = artifact.config if isinstance(artifact, CheckpointArtifact) else None
        for file in copied:
            _copy(file, beside / file.name, changed if file.name == "config.json" else None)
        if isinstance(artifact, AdapterArtifact):
            factors, modules = store.low_rank(recipe), map(module_of, store.outline(recipe))
            write_adapter(beside, factors, store.name_of(artifact.base), modules)
            artifact = replace(artifact, loss=store.loss(recipe, factors))
        else:
            tensors = store.raws(recipe, lasting=False)
            write_model(beside, store.outline(recipe), tensors, shard_bytes=shard_bytes, durable=durable)
        write_words(beside, store, recipe, artifact, title=out.name, extra=card)
        beside.replace(out)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror}); choose another folder or disk") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return artifact


def _copy(file: Path, target: Path, changed: Mapping[str, Any] | None) -> None:
    """Copy a file, or what it became; where its JSON remembers a path that the model once had, that is left out."""
    content = changed or (read_json(file) if file.name in _SCRUBBED else {})
    if changed or any(key in content for key in _PATHS):
        kept = {key: value for key, value in content.items() if key not in _PATHS}
        target.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        shutil.copyfile(file, target)
