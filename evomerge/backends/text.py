"""A model folder's tokenizer: prompts become token ids, and token ids text, by the tokenizer's own rules.

Plain prompts get the special tokens that the tokenizer adds by itself; messages go through its chat template, which
writes its own. Encodings are remembered, since every candidate of a study is asked the same prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from jinja2 import TemplateError
from transformers import AutoTokenizer

from evomerge.errors import ConfigError, SourceError
from evomerge.exchange import Prompt

_REMEMBERED = 1 << 16


@dataclass(frozen=True, slots=True)
class Split:
    """A prompt and its continuation as one sequence; the continuation is `ids[start:]`."""

    ids: tuple[int, ...]
    start: int


class Text:
    """The tokenizer of one model folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._tokenizer = cast(Any, AutoTokenizer.from_pretrained(str(folder), local_files_only=True))
        except (OSError, ValueError) as error:
            raise SourceError(f"{folder}: its tokenizer cannot be loaded ({_first_line(error)})") from None
        self.prompt = lru_cache(_REMEMBERED)(self._prompt)
        self.split = lru_cache(_REMEMBERED)(self._split)

    @property
    def end(self) -> int | None:
        """The token that ends a text, where there is one."""
        return cast("int | None", self._tokenizer.eos_token_id)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated tokens, special tokens left out."""
        return cast(str, self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _prompt(self, prompt: Prompt) -> tuple[int, ...]:
        """Return a prompt's tokens. Raises ConfigError for messages where there is no chat template."""
        return self._encode(prompt, "")

    def _split(self, prompt: Prompt, continuation: str) -> Split:
        """Return the tokens of prompt and continuation, encoded together as the model would read them.

        The continuation begins at the first token in which this differs from the prompt alone. So where a token reaches
        over the boundary (a space that belongs to the next word, an end token that the tokenizer puts after each text),
        it counts to the continuation: what is judged is always a way to read the whole text. At least one token stands
        before the continuation, where the tokenizer knows one to begin with; otherwise `start` is 0.
        """
        alone, whole = self._encode(prompt, ""), self._encode(prompt, continuation)
        start = next((at for at, (one, two) in enumerate(zip(alone, whole, strict=False)) if one != two), len(alone))
        start = min(start, len(whole))
        if start == 0:
            first = self._tokenizer.bos_token_id if self._tokenizer.bos_token_id is not None else self.end
            if first is not None:
                return Split((first, *whole), 1)
        return Split(whole, start)

    def _encode(self, prompt: Prompt, continuation: str) -> tuple[int, ...]:
        if isinstance(prompt, str):
            return tuple(self._tokenizer.encode(prompt + continuation))
        return tuple(self._tokenizer.encode(self._chat(prompt) + continuation, add_special_tokens=False))

    def _chat(self, prompt: Prompt) -> str:
        """Return the text of a chat, up to where the assistant's next turn begins."""
        if not self._tokenizer.chat_template:
            raise ConfigError(
                f"the tokenizer in {self._folder} has no chat template, so messages cannot be written for it; "
                "give the task a text as its `prompt`, or add a chat_template to the tokenizer"
            )
        turns = [{"role": turn.role, "content": turn.content} for turn in prompt if not isinstance(turn, str)]
        try:
            return cast(str, self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        except TemplateError as error:
            raise ConfigError(
                f"the chat template in {self._folder} refuses the messages ({_first_line(error)}); change the roles of "
                "the task's messages"
            ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
