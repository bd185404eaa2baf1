"""Tokenizers are read from whichever files there are."""

import json
from pathlib import Path
from typing import Any

import pytest

from evomerge.backends.weights.vocabulary import check_same, vocabulary
from evomerge.errors import SourceError


def folder(root: Path, name: str, **files: object) -> Path:
    (root / name).mkdir()
    for file, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (root / name / file.replace("__", ".")).write_text(text)
    return root / name


def test_all_kinds_of_files_tell_the_same(tmp_path: Path):
    tokens = {"a": 0, "b": 1, "<x>": 2}
    added = [{"id": 2, "content": "<x>"}]
    kinds = [
        folder(tmp_path, "bpe", tokenizer__json={"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": added}),
        folder(
            tmp_path, "unigram", tokenizer__json={"model": {"vocab": [["a", -1.0], ["b", -2.0]]}, "added_tokens": added}
        ),
        folder(tmp_path, "old", vocab__json={"a": 0, "b": 1}, added_tokens__json={"<x>": 2}),
        folder(tmp_path, "bert", vocab__txt="a\nb\n<x>\n"),
    ]
    for kind in kinds:
        assert vocabulary(kind) == tokens
        check_same(kinds[0], kind)


def test_a_token_too_many_is_named(tmp_path: Path):
    first = folder(tmp_path, "first", vocab__txt="a\nb\n")
    second = folder(tmp_path, "second", vocab__txt="a\nb\nc\n")
    with pytest.raises(
        SourceError, match=r"second has another tokenizer than .*first: the token 'c' has number 2 there and none here"
    ):
        check_same(first, second)


def test_a_folder_without_tokenizer_agrees_with_all(tmp_path: Path):
    check_same(folder(tmp_path, "first", vocab__txt="a\n"), folder(tmp_path, "second"))


def test_sentencepiece_models_are_compared_as_files(tmp_path: Path):
    first, second = (folder(tmp_path, name, tokenizer__model=name) for name in ("first", "second"))
    check_same(first, folder(tmp_path, "copy", tokenizer__model="first"))
    with pytest.raises(SourceError, match=r"second/tokenizer\.model differs from .*first/tokenizer\.model"):
        check_same(first, second)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", {"model": {}}, {"model": {"vocab": {"a": "x"}}}, {"model": {"vocab": {}}, "added_tokens": [1]}],
)
def test_a_broken_tokenizer_is_refused(tmp_path: Path, content: Any):
    broken = folder(tmp_path, "broken", tokenizer__json=content)
    with pytest.raises(SourceError, match=r"broken/tokenizer\.json"):
        vocabulary(broken)
