"""How a task is written in a job: its data, its prompt, its scorer and its splits.

The models here are the grammar (and so the JSON schema and the reference) of `tasks:`. They know which words may stand
together; whether files and fields exist is found out when the task is loaded.
"""

import inspect
import re
from typing import Annotated, Any, Literal, cast

from pydantic import Discriminator, Field, GetJsonSchemaHandler, Tag, field_validator, model_serializer, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from evomerge.exchange import Sampling
from evomerge.recipe.settings import Settings
from evomerge.tasks.scorers import ScorerSettings

Split = Literal["search", "select", "test"]
SPLITS: tuple[Split, ...] = ("search", "select", "test")
_JUDGING = frozenset({"choice", "likelihood"})

Text = Annotated[str, Field(min_length=1)]


class SplitSizes(Settings):
    """How many items each split has. What is left out gets its share of the rest: 40 % search (200 items at most), 20 %
    select (200 at most) and 40 % test (500 at most)."""

    search: int | None = Field(default=None, ge=1)
    """Items that every trial may be asked: what the search learns from."""
    select: int | None = Field(default=None, ge=1)
    """Items that the finalists are asked, to choose the winner among them."""
    test: int | None = Field(default=None, ge=1)
    """Items that only the winner and the baselines are asked, when the winner is known: what the report states."""

    def of(self, split: Split) -> int | None:
        """Return the size of one split, or None where it is left out."""
        match split:
            case "search":
                return self.search
            case "select":
                return self.select
            case "test":
                return self.test

    def over(self, default: "SplitSizes | None") -> "SplitSizes":
        """Return these sizes, with those of `default` where they are left out."""
        if default is None:
            return self
        return SplitSizes.model_validate(default.model_dump(exclude_none=True) | self.model_dump(exclude_none=True))


class DataFiles(Settings):
    """One data file for all splits, or one for each: JSONL (`.jsonl`) or CSV (`.csv`), relative to the job's file.

    A file that several splits name is divided between them; a file of a split of its own is used whole, unless `splits`
    says how many of its items. An item that stands in several files is kept in the test split, or else in select.
    """

    search: Text
    """File of the search split."""
    select: Text
    """File of the select split."""
    test: Text
    """File of the test split."""

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        if isinstance(value, str):
            return dict.fromkeys(SPLITS, value)
        if isinstance(value, dict):
            return cast(dict[str, Any], value)
        raise ValueError("data is a path, or a map of three paths (search, select and test)")

    @model_serializer
    def _to_path(self) -> str | dict[str, str]:
        files = {split: self.of(split) for split in SPLITS}
        return self.test if len(set(files.values())) == 1 else dict(files)

    def of(self, split: Split) -> str:
        """Return the file of one split."""
        match split:
            case "search":
                return self.search
            case "select":
                return self.select
            case "test":
                return self.test

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe both forms: a path, or a map of three."""
        properties = {
            split: {"type": "string", "minLength": 1, "description": cls.model_fields[split].description}
            for split in SPLITS
        }
        files: JsonSchemaValue = {
            "type": "object", "properties": properties, "required": list(SPLITS), "additionalProperties": False,
        }  # fmt: skip
        path: JsonSchemaValue = {"type": "string", "minLength": 1, "description": "One file for all splits."}
        return {"title": cls.__name__, "description": inspect.getdoc(cls), "anyOf": [path, files]}


class PromptMessage(Settings):
    """One turn of a chat prompt."""

    role: Literal["system", "user", "assistant"]
    """Who speaks."""
    content: str
    """Jinja template of what is said."""


def _prompt_kind(value: Any) -> str:
    return "text" if isinstance(value, str) else "messages"


def _choices_kind(value: Any) -> str:
    return "field" if isinstance(value, str) else "templates"


class TaskSettings(Settings):
    """Items, a prompt and a scorer. Templates are Jinja, without access to Python: `{{question}}` stands for the item's
    field `question`, and `{{item["my field"]}}` for one whose name is no single word."""

    name: str = Field(max_length=100)
    """What the task is called in reports: letters, digits, spaces and any of `. _ + -`, different from the other tasks'
    names."""
    data: DataFiles
    """The data file, or `{search: …, select: …, test: …}`; JSONL with one object a line, or CSV with the fields' names
    in its first line, in UTF-8."""
    prompt: Annotated[
        Annotated[Text, Tag("text")] | Annotated[tuple[PromptMessage, ...], Field(min_length=1), Tag("messages")],
        Discriminator(_prompt_kind),
    ]
    """What the model is asked. A template goes to the model as plain text; a list of `{role, content}` goes through the
    model's own chat template."""
    reference: Text | None = None
    """The right answer: the name of a field, or a template. A field that holds a list has several right answers.
    Default: the field `answer`."""
    choices: (
        Annotated[
            Annotated[Text, Tag("field")] | Annotated[tuple[Text, ...], Field(min_length=2), Tag("templates")],
            Discriminator(_choices_kind),
        ]
        | None
    ) = None
    """The texts among which `score: choice` chooses: the name of a field that holds a list, or a list of templates."""
    constrain: bool = False
    """Let generated answers be nothing but one of `choices`, where the backend can hold a model to that: vllm, and some
    endpoints."""
    score: ScorerSettings
    """What an answer is worth: exact, contains, numeric, f1, regex, choice or likelihood, with options as in `{numeric:
    {tolerance: 0.01}}` or `{regex: "answer: (\\\\w+)"}`; or a function of your own: `{python: "my.module:score"}`."""
    search_by: ScorerSettings | None = None
    """Another scorer for the search split alone, as `likelihood`, which is less noisy than right or wrong; the winner
    is still selected and reported by `score`."""
    max_tokens: int = Field(default=64, ge=1)
    """Length at which a generated answer is cut."""
    temperature: float = Field(default=0.0, ge=0)
    """0 always takes the likeliest token; above it, answers are drawn, with a seed of the item's own."""
    stop: tuple[Text, ...] = ()
    """Texts that end an answer and are not part of it."""
    weight: float = Field(default=1.0, gt=0)
    """How much the task counts in a mean over tasks."""
    splits: SplitSizes = SplitSizes()
    """How many items each split has, where it differs from the sizes that the job gives for all tasks."""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not re.fullmatch(r"\w[\w .+-]*", name):
            raise ValueError(f"{name!r} is no name for a task; use letters, digits, spaces and any of . _ + -")
        return name

    @model_validator(mode="after")
    def _asks_something(self) -> "TaskSettings":
        templates = (self.prompt,) if isinstance(self.prompt, str) else [turn.content for turn in self.prompt]
        if not any(is_template(template) for template in templates):
            raise ValueError(
                'the prompt has no field in it, so every item would be the same; write one as "{{question}}"'
            )
        return self

    @model_validator(mode="after")
    def _constrains_something(self) -> "TaskSettings":
        if not self.constrain:
            return self
        if self.choices is None:
            raise ValueError("constrain: there is nothing that answers are to be; give choices, or remove constrain")
        if {self.scorer(split).name for split in SPLITS} <= _JUDGING:
            raise ValueError(f"constrain: {self.score.name} generates no answers; remove constrain")
        return self

    @property
    def sampling(self) -> Sampling:
        """How answers are generated; the seed is the task's to give."""
        return Sampling(max_tokens=self.max_tokens, temperature=self.temperature, stop=self.stop)

    def scorer(self, split: Split) -> ScorerSettings:
        """Return the scorer of one split."""
        return self.search_by if split == "search" and self.search_by is not None else self.score


def is_template(text: str) -> bool:
    """True when a text has something to be filled in; elsewhere, a word is the name of a field."""
    return "{{" in text or "{%" in text
