"""Tokenizers compared: two models can be merged only if every token has the same number in both.

What is compared is the vocabulary with its added tokens, read from the tokenizer's own files; nothing is tokenized.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from evomerge.backends.weights.tensors import read_json
from evomerge.errors import SourceError

SENTENCEPIECE = "tokenizer.model"
Vocabulary = Mapping[str, int]


def vocabulary(folder: Path) -> Vocabulary | None:
    """Return the tokens of a folder's tokenizer and their numbers, or None where it has no tokenizer that lists them.

    Raises SourceError for a broken tokenizer file.
    """
    if (file := folder / "tokenizer.json").is_file():
        return _from_tokenizer(file)
    if (file := folder / "vocab.json").is_file():
        return _numbers(file, read_json(file)) | _added(folder)
    if (file := folder / "vocab.txt").is_file():
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        return {token: number for number, token in enumerate(lines)} | _added(folder)
    return None


def check_same(first: Path, second: Path) -> None:
    """Raise SourceError, naming the first token that differs, unless two folders' tokenizers agree.

    A folder without tokenizer agrees with all.
    """
    if _same_file(first, second, "tokenizer.json"):
        return
    theirs = vocabulary(second)
    ours = None if theirs is None else vocabulary(first)
    if ours is None or theirs is None:
        if _same_file(first, second, SENTENCEPIECE) is False:
            raise SourceError(
                f"{second / SENTENCEPIECE} differs from {first / SENTENCEPIECE}; "
                "merge only models that share a tokenizer"
            )
        return
    if ours == theirs:
        return
    tokens = {*ours.items()} ^ {*theirs.items()}
    token = min(tokens, key=lambda item: (item[1], item[0]))[0]
    raise SourceError(
        f"{second} has another tokenizer than {first}: the token {token!r} has number {_said(theirs, token)} there and "
        f"{_said(ours, token)} here; merge only models that share a tokenizer"
    )


def check_spelling(first: Path, second: Path) -> None:
    """Raise SourceError where two folders' tokenizers spell the same text differently, so that tokens of one string
    stand for different texts.
    """
    ours, theirs = _spelling(first), _spelling(second)
    if ours and theirs and not ours & theirs:
        raise SourceError(
            f"{second / 'tokenizer.json'} spells its tokens in another way ({', '.join(sorted(theirs))}) than "
            f"{first / 'tokenizer.json'} ({', '.join(sorted(ours))}), so they cannot be matched; merge only models "
            "whose tokenizers are of one kind"
        )


def _spelling(folder: Path) -> set[str]:
    """Return which of the ways to write spaces and bytes in tokens a tokenizer names."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return set()
    content = read_json(file)
    told = json.dumps([content.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")], ensure_ascii=False)
    spelled = {kind for kind in ("ByteLevel", "WordPiece") if f'"{kind}"' in told}
    return spelled | ({"Metaspace"} if '"Metaspace"' in told or "\u2581" in told else set())


def _said(found: Vocabulary, token: str) -> str:
    return str(found[token]) if token in found else "none"


def _same_file(first: Path, second: Path, name: str) -> bool | None:
    """Return whether two folders hold the same file, None where one of them holds none."""
    files = [folder / name for folder in (first, second)]
    if not all(file.is_file() for file in files):
        return None
    return files[0].read_bytes() == files[1].read_bytes()


def _from_tokenizer(file: Path) -> dict[str, int]:
    content = read_json(file)
    model: Any = content.get("model")
    listed: Any = cast(dict[str, Any], model).get("vocab") if isinstance(model, dict) else None
    if isinstance(listed, list):  # unigram models list [token, score] in the order of their numbers
        listed = {str(entry[0]): number for number, entry in enumerate(cast(list[list[Any]], listed))}
    if not isinstance(listed, dict):
        raise SourceError(f"{file} has no vocabulary; copy or download it again")
    tokens = _numbers(file, cast(dict[str, Any], listed))
    for entry in cast(list[Any], content.get("added_tokens") or []):
        match entry:
            case {"content": str(token), "id": int(number)}:
                tokens[token] = number
            case _:
                raise SourceError(f"{file} has an added token without content or id; copy or download it again")
    return tokens


def _added(folder: Path) -> dict[str, int]:
    file = folder / "added_tokens.json"
    return _numbers(file, read_json(file)) if file.is_file() else {}


def _numbers(file: Path, tokens: Mapping[str, Any]) -> dict[str, int]:
    for token, number in tokens.items():
        if not isinstance(number, int):
            raise SourceError(f"{file}: the token {token!r} has no number; copy or download it again")
    return dict(tokens)
