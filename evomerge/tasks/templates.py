"""Questions: an item's fields put into the task's templates.

Templates are Jinja's, in its sandbox: they read fields and compute words, and reach neither Python nor files. A field
that is not there is an error that names task, file and line, never an empty text.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

from evomerge.errors import ConfigError, SourceError
from evomerge.exchange import Message, Prompt
from evomerge.tasks.items import Item
from evomerge.tasks.scorers import Question
from evomerge.tasks.settings import TaskSettings, is_template

DEFAULT_REFERENCE = "answer"

Fill = Callable[[Item], str]


class Questioner:
    """Turns the items of one task into questions. Raises ConfigError for a template that Jinja cannot read."""

    def __init__(self, settings: TaskSettings) -> None:
        self.settings = settings
        self._environment = _environment()
        self._prompt = self._compiled_prompt()
        self._reference = self._compiled_reference()
        self._choices = self._compiled_choices()

    def question(self, item: Item) -> Question:
        """Return the item's question. Raises SourceError, with file and line, for a missing field."""
        return Question(item, self._prompt(item), self._reference(item), self._choices(item))

    def _compiled_prompt(self) -> Callable[[Item], Prompt]:
        prompt = self.settings.prompt
        if isinstance(prompt, str):
            return self._template("prompt", prompt)
        turns = [(turn, self._template(f"prompt[{n}].content", turn.content)) for n, turn in enumerate(prompt)]
        return lambda item: tuple(Message(turn.role, fill(item)) for turn, fill in turns)

    def _compiled_reference(self) -> Callable[[Item], tuple[str, ...]]:
        reference = self.settings.reference
        if reference is None:
            return lambda item: (
                self._texts("reference", DEFAULT_REFERENCE, item) if DEFAULT_REFERENCE in item.fields else ()
            )
        if is_template(reference):
            fill = self._template("reference", reference)
            return lambda item: (fill(item),)
        return lambda item: self._texts("reference", reference, item)

    def _compiled_choices(self) -> Callable[[Item], tuple[str, ...]]:
        choices = self.settings.choices
        if choices is None:
            return lambda _: ()
        if isinstance(choices, str):
            if is_template(choices):
                raise self._error(
                    "choices",
                    "a template gives one text; name a field that holds a list, or write a list of templates",
                )
            return lambda item: self._list(choices, item)
        fills = [self._template(f"choices[{n}]", choice) for n, choice in enumerate(choices)]
        return lambda item: tuple(fill(item) for fill in fills)

    def _template(self, key: str, source: str) -> Fill:
        from jinja2 import TemplateSyntaxError, UndefinedError

        try:
            template = self._environment.from_string(source)
        except TemplateSyntaxError as error:
            raise self._error(key, f"this is no Jinja template: {error.message} (line {error.lineno} of it)") from None

        def fill(item: Item) -> str:
            try:
                return template.render({"item": item.fields, **item.fields})
            except UndefinedError as error:
                problem = f"{error.message}; the fields there are {item.field_names}"
            except Exception as error:
                # A template computes with whatever the fields hold, and may fail in any way that Python can.
                problem = f"{type(error).__name__}: {error}; the fields there are {item.field_names}"
            raise self._error(key, f"the template cannot be filled in at {item.where}: {problem}", SourceError)

        return fill

    def _texts(self, key: str, field: str, item: Item) -> tuple[str, ...]:
        """Return a field as one text, or as many as its list has."""
        value = self._field(key, field, item)
        values = cast(list[Any], value) if isinstance(value, list) else [value]
        problem = _text_problem(values)
        if problem is not None:
            raise self._error(key, f"the field {field!r} at {item.where} holds {problem}", SourceError)
        return tuple(str(value) for value in values)

    def _list(self, field: str, item: Item) -> tuple[str, ...]:
        if not isinstance(self._field("choices", field, item), list):
            raise self._error(
                "choices",
                f"the field {field!r} at {item.where} is no list; put a list there, or write a list of templates",
                SourceError,
            )
        return self._texts("choices", field, item)

    def _field(self, key: str, field: str, item: Item) -> Any:
        if field not in item.fields:
            raise self._error(
                key,
                f"there is no field {field!r} at {item.where}; the fields there are {item.field_names}",
                SourceError,
            )
        return item.fields[field]

    def _error(self, key: str, sentence: str, kind: type[ConfigError] = ConfigError) -> ConfigError:
        return kind(f"task {self.settings.name!r}: {key}: {sentence}")


def _text_problem(values: list[Any]) -> str | None:
    """Return what a field holds that is no text or number (or list of them), with the fix."""
    if not values:
        return "an empty list; put a text in it"
    if any(value is None for value in values):
        return "null; write a text or number, or remove the item"
    if any(isinstance(value, list | dict) for value in values):
        return "a list in a list or an object; write texts or numbers, or use a template that reads them"
    return None


def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Prompts are plain text, so nothing is escaped as HTML would be.
    return ImmutableSandboxedEnvironment(
        autoescape=False,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )


def asked(question: Question) -> Mapping[str, Any]:
    """Return what a model sees of a question, as plain data: questions that agree in it are one and the same item."""
    prompt = question.prompt
    plain = prompt if isinstance(prompt, str) else [[turn.role, turn.content] for turn in prompt]
    return {"prompt": plain, "choices": list(question.choices)}
