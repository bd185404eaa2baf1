"""How a scorer is named in a job, and found.

`score:` takes a word (`exact`), a word with its main option (`{regex: "…"}`), or a word with options (`{numeric:
{tolerance: 0.01}}`, or flat beside the main option: `{regex: "…", group: 1}`). Other packages add scorers through the
entry points "evomerge.scorers", whose names are the scorers' names; a plugin that cannot be loaded is warned about and
skipped.
"""

import difflib
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import Field, GetJsonSchemaHandler, ValidationError, model_serializer, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from evomerge.recipe.reading import dotted, unknown_key
from evomerge.recipe.settings import Settings
from evomerge.tasks.scorers.protocol import Scorer

GROUP = "evomerge.scorers"
Made = TypeVar("Made", bound=Callable[[Any, Path], Scorer])


class NoOptions(Settings):
    """A scorer without options."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A scorer that can be named: its options, the one that may stand for all of them, and how it is made."""

    name: str
    options: type[Settings]
    main: str | None
    make: Callable[[Any, Path], Scorer]


_kinds: dict[str, Kind] = {}
_house: set[str] = set()


def scorer(name: str, *, options: type[Settings] = NoOptions, main: str | None = None) -> Callable[[Made], Made]:
    """Return a decorator that registers a scorer under the name that jobs use.

    The class is called with an instance of `options` and the job's folder. `main` is the option that may be written
    alone, as in `{regex: "…"}`. Raises ValueError for a name that is taken.
    """

    def register(made: Made) -> Made:
        if name in _kinds and _kinds[name].make is not made:
            raise ValueError(f"there is a scorer named {name!r} already; choose another name")
        _kinds[name] = Kind(name, options, main, made)
        if made.__module__.startswith(__name__.rpartition(".")[0] + "."):
            _house.add(name)
        return made

    return register


def find(name: str) -> Kind:
    """Return the scorer of this name, of the house or a plugin. Raises ValueError with the nearest known name."""
    if name not in _kinds:
        _load_plugins(entry_points(group=GROUP))
    if name not in _kinds:
        near = difflib.get_close_matches(name, _kinds, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known())}"
        raise ValueError(f"there is no scorer named {name!r}; {hint}")
    return _kinds[name]


def known() -> tuple[str, ...]:
    """Return the names of all scorers that were found so far, in alphabetical order."""
    return tuple(sorted(_kinds))


def _load_plugins(plugins: Iterable[EntryPoint]) -> None:
    for plugin in plugins:
        if plugin.name in _kinds:
            continue
        try:
            plugin.load()
        except Exception as error:
            # Somebody else's package may fail in any way, and must not take the job down with it.
            warnings.warn(f"the scorer plugin {plugin.name!r} ({plugin.value}) cannot be loaded: {error}", stacklevel=4)
            continue
        if plugin.name not in _kinds:
            warnings.warn(
                f"the scorer plugin {plugin.name!r} ({plugin.value}) registers no scorer of that name; "
                f'its class needs the decorator @scorer("{plugin.name}")',
                stacklevel=4,
            )


class ScorerSettings(Settings):
    """A scorer with its options: a word, or a map from the word to its main option or its options."""

    name: str
    """Which scorer."""
    options: dict[str, Any] = Field(default_factory=dict[str, Any])
    """The options as they were written, without those left out."""

    @model_validator(mode="before")
    @classmethod
    def _from_words(cls, value: Any) -> dict[str, Any]:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping) and value:
            return _from_mapping(cast(Mapping[str, Any], value))
        raise ValueError(f"a scorer is a word or a map such as {{regex: …}}; known: {', '.join(known())}")

    @model_validator(mode="after")
    def _has_these_options(self) -> "ScorerSettings":
        self.parsed()
        return self

    @model_serializer
    def _to_words(self) -> str | dict[str, Any]:
        return {self.name: self.options} if self.options else self.name

    def parsed(self) -> Settings:
        """Return the options as the scorer's own model. Raises ValueError naming the option that does not fit."""
        kind = find(self.name)
        try:
            return kind.options.model_validate(self.options, strict=True)
        except ValidationError as error:
            raise ValueError(_first_problem(kind, error)) from None

    def make(self, root: Path) -> Scorer:
        """Return the scorer; `root` is the job's folder. Raises ConfigError where own code cannot be imported."""
        return find(self.name).make(self.parsed(), root)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe the grammar with the scorers of the house, so that an editor completes them."""
        del core_schema, handler
        kinds = [_kinds[name] for name in sorted(_house)]
        words = [kind.name for kind in kinds if not _required(kind)]
        plugin: JsonSchemaValue = {"type": "string", "description": "The name of a scorer that another package brings."}
        word: JsonSchemaValue = {"anyOf": [{"enum": words}, plugin]}
        mapping: JsonSchemaValue = {
            "type": "object",
            "minProperties": 1,
            "properties": {kind.name: _options_schema(kind) for kind in kinds},
        }
        return {"title": cls.__name__, "description": inspect.getdoc(cls), "anyOf": [word, mapping]}


def _from_mapping(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return name and options: exactly one key is the name of a scorer, and the keys beside it are further options."""
    names = [key for key in value if key in _kinds] or list(value)[:1]
    if len(names) > 1:
        raise ValueError(f"a scorer has one name, and here are {' and '.join(map(repr, names))}; keep one")
    kind = find(names[0])
    written = value[kind.name]
    beside = {key: item for key, item in value.items() if key != kind.name}
    if isinstance(written, Mapping):
        options = dict(cast(Mapping[str, Any], written))
    elif kind.main is not None:
        options = {kind.main: written}
    else:
        raise ValueError(f"{kind.name} takes a map of options, and here is {written!r}")
    twice = next((key for key in beside if key in options), None)
    if twice is not None:
        raise ValueError(f"the option {twice!r} of {kind.name} is given twice; remove one")
    return {"name": kind.name, "options": options | beside}


def _first_problem(kind: Kind, error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    option = dotted(problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{kind.name}: {unknown_key(option, list(kind.options.model_fields))}"
    if problem["type"] == "missing":
        return f"{kind.name}: '{option}' is missing; write {{{kind.name}: {{{option}: …}}}}"
    message = problem["msg"].removeprefix("Value error, ")
    message = f"{message[:1].lower()}{message[1:]}"
    shown = "" if problem["type"] == "value_error" else f", and it is {problem['input']!r}"
    return f"{kind.name}.{option}: {message}{shown}" if option else f"{kind.name}: {message}"


def _required(kind: Kind) -> bool:
    return any(info.is_required() for info in kind.options.model_fields.values())


def _options_schema(kind: Kind) -> JsonSchemaValue:
    options = kind.options.model_json_schema()
    if kind.main is None:
        return options
    return {"description": options.get("description", ""), "anyOf": [options["properties"][kind.main], options]}
