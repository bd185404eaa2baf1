"""Fingerprints: what a model folder holds, as a hash that does not depend on where the folder is.

A checkpoint counts with its tensors and with every file that decides what it answers (configuration, tokenizer, chat
template); an adapter with its factors and the numbers that scale them. Hashes of large files are remembered by path,
size, time and inode in the user's cache folder; a cache that is broken or cannot be written is ignored.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from evomerge.backends.weights.adapter import Adapter
from evomerge.backends.weights.checkpoint import Checkpoint

BEHAVIOUR = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)
"""Files beside the tensors that decide what a model is asked and answers."""

_VOLATILE = ("_name_or_path", "transformers_version", "torch_dtype", "dtype")
_SCALING = ("lora_alpha", "alpha_pattern", "use_rslora")
_DIGITS = 32
_REMEMBERED = 10_000


def fingerprint(model: Checkpoint | Adapter) -> str:
    """Return 32 hexadecimal digits of what a model holds: BLAKE2b of its files' hashes and of what scales it."""
    parts: list[Any] = sorted(FileHashes().of(model.files))
    if isinstance(model, Adapter):
        parts.append({key: model.config.get(key) or None for key in _SCALING})
    else:
        parts.append({key: value for key, value in model.config.items() if key not in _VOLATILE})
        parts += [[name, _hash_of(file)] for name in BEHAVIOUR if (file := model.folder / name).is_file()]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=_DIGITS // 2).hexdigest()


class FileHashes:
    """Hashes of files' contents, remembered between processes."""

    def __init__(self, store: Path | None = None) -> None:
        self._store = store or cache_folder() / "file-hashes.json"

    def of(self, files: Iterable[Path]) -> list[str]:
        """Return the hash of each file, reading only those that are new or changed.

        It is XXH3 of 128 bits: good against accidents, not made against forgers, and as fast as files are read.
        """
        known = self._known()
        fresh: dict[str, list[Any]] = {}
        hashes: list[str] = []
        for file in files:
            state = file.stat()
            key, now = str(file.resolve()), [state.st_size, state.st_mtime_ns, state.st_ino]
            entry = known.get(key)
            if not (isinstance(entry, list) and len(entry) == 4 and entry[:3] == now and isinstance(entry[3], str)):
                entry = fresh[key] = [*now, _hash_of(file)]
            hashes.append(str(entry[3]))
        if fresh:
            self._remember(fresh)
        return hashes

    def _known(self) -> dict[str, list[Any]]:
        try:
            known = json.loads(self._store.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return cast(dict[str, list[Any]], known) if isinstance(known, dict) else {}

    def _remember(self, fresh: dict[str, list[Any]]) -> None:
        entries = list((self._known() | fresh).items())[-_REMEMBERED:]
        beside = self._store.with_name(f".{self._store.name}.{secrets.token_hex(4)}")
        try:
            self._store.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(dict(entries)), encoding="utf-8")
            beside.replace(self._store)
        except OSError:
            with suppress(OSError):
                beside.unlink()


def cache_folder() -> Path:
    """Return where evomerge keeps what it can make again."""
    chosen = os.environ.get("XDG_CACHE_HOME")
    return (Path(chosen) if chosen else Path.home() / ".cache") / "evomerge"


def _hash_of(file: Path) -> str:
    from xxhash import xxh3_128

    with file.open("rb", buffering=0) as stream:
        return hashlib.file_digest(stream, xxh3_128).hexdigest()
