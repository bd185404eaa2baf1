"""Exporting: a recipe's model as a folder that transformers or peft load, with the recipe, and a model card.

Tensors are those that were scored, streamed one at a time. The folder appears whole or not at all: it is written beside
its place and renamed; a folder that already holds something is never touched, and a disk too small is noticed before
anything is written.
"""

import json
import secrets
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from evomerge.backends.weights.adapter_folder import write_adapter
from evomerge.backends.weights.artifact import AdapterArtifact, Artifact, CheckpointArtifact
from evomerge.backends.weights.fingerprint import BEHAVIOUR
from evomerge.backends.weights.models import module_of
from evomerge.backends.weights.packs import pack_names, pack_outline, write_packs
from evomerge.backends.weights.store import WeightStore
from evomerge.backends.weights.tensors import read_json
from evomerge.backends.weights.words import write_words
from evomerge.backends.weights.writing import SHARD_BYTES, write_model
from evomerge.errors import ConfigError
from evomerge.recipe.tree import Merge, WeightRecipe

_MARGIN = 1 << 20
OF_MODEL = ("config.json", "generation_config.json")
OF_TOKENIZER = tuple(name for name in BEHAVIOUR if name not in OF_MODEL)
"""Files that are copied: those that belong to the model, and those that belong to its tokenizer."""
_SCRUBBED = (*OF_MODEL, "tokenizer_config.json")
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

    A checkpoint holds the config, generation config, tokenizer and chat template of its base (or first model), and the
    packs that its recipe asks for; an adapter the base's tokenizer and chat template. Both hold recipe.yaml, README.md
    (with `card`, Markdown, at its end), and mergekit.yaml where mergekit can say the same. `free` tells the bytes that
    are free for a folder. Only if `durable`, all of it is on the disk when this returns: somebody is about to note down
    that it is there. Raises ConfigError when `out` is taken or the disk too full, CandidateError when the recipe cannot
    be computed.
    """
    artifact, packs = store.artifact(recipe), pack_names(store.as_written(recipe))
    names = OF_TOKENIZER if isinstance(artifact, AdapterArtifact) else (*OF_MODEL, *OF_TOKENIZER)
    folders = {name: artifact.skeleton if name == "config.json" else artifact.behaviour for name in names}
    copied = [file for name, folder in folders.items() if (file := folder / name).is_file()]
    size = artifact.size + sum(file.stat().st_size for file in copied)
    size += len(packs) * sum(tensor.size for tensor in pack_outline(store.outline(recipe)).values())
    with new_folder(out, size, free) as beside:
        changed = artifact.config if isinstance(artifact, CheckpointArtifact) else None
        for file in copied:
            copy_file(file, beside / file.name, changed if file.name == "config.json" else None)
        if isinstance(artifact, AdapterArtifact):
            factors, modules = store.low_rank(recipe), map(module_of, store.outline(recipe))
            write_adapter(beside, factors, store.name_of(artifact.base), modules)
            artifact = replace(artifact, loss=store.loss(recipe, factors))
        else:
            tensors = store.raws(recipe, lasting=False)
            write_model(beside, store.outline(recipe), tensors, shard_bytes=shard_bytes, durable=durable)
            if isinstance(recipe, Merge) and packs:
                write_packs(beside, store, recipe, packs, durable=durable)
                artifact = replace(artifact, packs=packs)
        write_words(beside, store, recipe, artifact, title=out.absolute().name, extra=card)
    return artifact


@contextmanager
def new_folder(out: Path, size: int, free: Callable[[Path], int]) -> Generator[Path]:
    """Give a folder to write `size` bytes into, which becomes `out` when that is done, and is removed when it fails.

    Raises ConfigError when `out` is taken or cannot be written, or the disk is too full.
    """
    out = out.absolute()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out} exists already; choose another folder, or remove it first")
    needed = size + _MARGIN
    if (there := free(out)) < needed:
        raise ConfigError(
            f"{out}: the export needs {needed} bytes and {there} are free; free some, or choose another disk"
        )
    beside = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    try:
        beside.mkdir(parents=True)
        yield beside
        beside.replace(out)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror}); choose another folder or disk") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def copy_file(file: Path, target: Path, changed: Mapping[str, Any] | None = None) -> None:
    """Copy a file, or what it became; where its JSON remembers a path that the model once had, that is left out."""
    content = changed or (read_json(file) if file.name in _SCRUBBED else {})
    if changed or any(key in content for key in _PATHS):
        kept = {key: value for key, value in content.items() if key not in _PATHS}
        target.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        shutil.copyfile(file, target)
