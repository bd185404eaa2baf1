"""A prompt and its continuation are judged as the tokenizer reads the two together."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from evomerge.backends.text import Split, Text
from evomerge.errors import SourceError
from evomerge.exchange import Message
from tests.support.models import BOS, save_tokenizer

PIECES = ["<end>", "a", "b", "Ġ", "ab", "Ġa"]


def save_merging(folder: Path, end: str | None = PIECES[0]) -> None:
    """Write a byte-pair tokenizer that reads "ab" and " a" as one token each, and begins no text with a token."""
    vocabulary = {piece: place for place, piece in enumerate(PIECES)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b"), ("Ġ", "a")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token=end).save_pretrained(folder)


def pieces(split: Split) -> tuple[list[str], list[str]]:
    told = [PIECES[token] for token in split.ids]
    return told[: split.start], told[split.start :]


@pytest.mark.parametrize(
    ("prompt", "continuation", "before", "after"),
    [
        ("b", "a", ["b"], ["a"]),
        ("b", " a", ["b"], ["Ġa"]),
        ("b ", "a", ["b"], ["Ġa"]),  # the space belongs to the next word
        ("ba", "b", ["b"], ["ab"]),  # the prompt's last letter is part of a token that reaches over
        ("b", "", ["b"], []),
        ("", "a", ["<end>"], ["a"]),  # something has to stand before what is judged
        ("a", "b", ["<end>"], ["ab"]),
    ],
)
def test_the_continuation_begins_where_the_whole_differs_from_the_prompt_alone(
    tmp_path: Path, prompt: str, continuation: str, before: list[str], after: list[str]
) -> None:
    save_merging(tmp_path)
    assert pieces(Text(tmp_path).split(prompt, continuation)) == (before, after)


def test_without_a_token_to_begin_with_nothing_stands_before_the_continuation(tmp_path: Path) -> None:
    save_merging(tmp_path, end=None)
    text = Text(tmp_path)
    assert text.end is None
    assert text.split("", "a") == Split((1,), 0)


def test_a_start_token_is_the_prompts(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    split = Text(tmp_path).split("", "ab")
    assert (split.ids[0], split.start) == (BOS, 1)


def test_a_prompt_is_encoded_once_however_often_it_is_asked(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    text = Text(tmp_path)
    chat = (Message("user", "hi"),)
    assert text.prompt(chat) is text.prompt((Message("user", "hi"),))
    assert text.prompt("hi") is text.prompt("hi")
    assert text.decode(text.prompt("hi")) == "hi"


def test_a_folder_without_a_tokenizer_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="tokenizer cannot be loaded"):
        Text(tmp_path)
