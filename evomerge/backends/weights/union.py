"""The union of tokenizers: that of the base with the tokens that other models added to theirs.

A tokenizer's own vocabulary belongs to the rules by which it cuts a text, so tokens can only be added whole, as added
tokens: what another model has within its own vocabulary is refused by name. The new tokenizer is written by the
tokenizers library into the user's cache folder, read back by transformers, and used only if it has exactly the tokens
that it should have.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from evomerge.backends.weights.fingerprint import BEHAVIOUR, cache_folder
from evomerge.backends.weights.tensors import read_json
from evomerge.backends.weights.vocabulary import Vocabulary, vocabulary
from evomerge.errors import SourceError

_FILE = "tokenizer.json"
_CONFIG = "tokenizer_config.json"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

Added = Mapping[str, Mapping[str, bool]]
"""The tokens to be added, with their settings, in their order."""


def union(base: Path, others: Sequence[tuple[Path, Vocabulary]]) -> tuple[Path, Vocabulary]:
    """Return a folder with the union of a base's tokenizer and those of others, and its vocabulary.

    `others` have those tokens of theirs that they have rows for. Raises SourceError, naming folder and token, for a
    union that cannot be written truthfully.
    """
    if not (base / _FILE).is_file():
        raise SourceError(f"{base} has no {_FILE} that tokens could be added to; write source: base, or a model")
    known = vocabulary(base) or {}
    added: dict[str, Mapping[str, bool]] = {}
    for folder, tokens in others:
        settings = _added_tokens(folder)
        for token in sorted(tokens.keys() - known.keys() - added.keys(), key=lambda token: tokens[token]):
            if token not in settings:
                raise SourceError(
                    f"{folder}: the token {token!r} is part of the vocabulary itself, by whose rules texts are cut, "
                    f"and cannot be added to that of {base}; write source: base, or the model whose vocabulary to keep"
                )
            added[token] = settings[token]
    if not added:
        return base, known
    folder = cache_folder() / "tokenizers" / _name(base, added)
    if not folder.is_dir():
        _write(base, added, folder)
    return folder, vocabulary(folder) or {}


def _added_tokens(folder: Path) -> dict[str, dict[str, bool]]:
    """Return the tokens that were added to a folder's tokenizer, with their settings."""
    file = folder / _FILE
    if not file.is_file():
        return {}
    entries = cast(list[dict[str, Any]], read_json(file).get("added_tokens") or [])
    return {str(entry["content"]): {flag: bool(entry.get(flag, False)) for flag in _FLAGS} for entry in entries}


def _name(base: Path, added: Added) -> str:
    told = hashlib.blake2b(json.dumps(added).encode(), digest_size=16)
    for name in BEHAVIOUR:
        if (file := base / name).is_file():
            told.update(name.encode() + file.read_bytes())
    return told.hexdigest()


def _write(base: Path, added: Added, folder: Path) -> None:
    """Write the union as a folder that appears whole or not at all."""
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        beside.mkdir(parents=True)
        for name in BEHAVIOUR:
            if (file := base / name).is_file():
                shutil.copyfile(file, beside / name)
        numbers = _add(beside, added)
        _check(beside, base, numbers)
        if not folder.is_dir():
            beside.replace(folder)
    except OSError as error:
        raise SourceError(
            f"{folder} cannot be written ({error.strerror}); set XDG_CACHE_HOME to another folder"
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _add(folder: Path, added: Added) -> Vocabulary:
    """Add tokens to the tokenizer in a folder, and return the numbers that they got."""
    from tokenizers import AddedToken, Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / _FILE))
    tokenizer.add_tokens([AddedToken(token, **settings) for token, settings in added.items()])
    tokenizer.save(str(folder / _FILE))
    numbers = {token: cast(int, tokenizer.token_to_id(token)) for token in added}
    if (file := folder / _CONFIG).is_file():
        config = read_json(file)
        if isinstance(listed := config.get("added_tokens_decoder"), dict):
            entries = {str(numbers[token]): {"content": token, **settings} for token, settings in added.items()}
            config["added_tokens_decoder"] = {**cast(dict[str, Any], listed), **entries}
            file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if (file := folder / "added_tokens.json").is_file():
        file.write_text(json.dumps(read_json(file) | numbers, ensure_ascii=False) + "\n", encoding="utf-8")
    return numbers


def _check(folder: Path, base: Path, numbers: Vocabulary) -> None:
    """Raise SourceError unless transformers reads the base's tokens with the new ones, and each as one token."""
    from transformers import AutoTokenizer

    tokenizer = cast(Any, AutoTokenizer.from_pretrained(str(folder), local_files_only=True))
    read, expected = cast(dict[str, int], tokenizer.get_vocab()), {**(vocabulary(base) or {}), **numbers}
    wrong = sorted(token for token in {*read, *expected} if read.get(token) != expected.get(token))
    wrong += [token for token, number in numbers.items() if number not in cast(list[int], tokenizer.encode(token))]
    if wrong:
        raise SourceError(
            f"{base}: its tokenizer with the tokens of the other models is read back otherwise (the token "
            f"{wrong[0]!r}), so their union cannot be written; write source: base, or a model"
        )
