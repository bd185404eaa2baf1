"""A file of mergekit read as a recipe: what it says is kept, what it leaves out is at mergekit's default, not at ours.

A file may have several documents, of which some use the results of others by their names. Whatever cannot be expressed
is refused with file, line and key; what changes nothing is left out with a note.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast, get_args

from evomerge.errors import ConfigError
from evomerge.recipe.mergekit.grammar import Config, Model, ModelEntry, OutputSlice, Parameters, SliceSource
from evomerge.recipe.mergekit.methods import SCALE, Method, Parameter
from evomerge.recipe.mergekit.models import named_sources
from evomerge.recipe.mergekit.names import Scope, method_of, unused
from evomerge.recipe.mergekit.values import Setting, value_of
from evomerge.recipe.reading import Document, KeyPath, parse_yaml, read_text
from evomerge.recipe.tree import Dtype, Input, Merge, Result, Slice, Source, Stack, WeightRecipe
from evomerge.recipe.values import Value, scalars

_METHOD = re.compile(r"^merge_method[ \t]*:", re.MULTILINE)
_NEXT = re.compile(r"^---(?=\s|$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Converted:
    """What a file of mergekit means here, and notes for a person about what was left out."""

    recipe: Merge | Stack
    notes: tuple[str, ...]


def is_mergekit(path: Path) -> bool:
    """Return whether a YAML file is one of mergekit. Raises ConfigError for a file that cannot be read."""
    return _METHOD.search(read_text(path)) is not None


def read_mergekit(path: Path) -> Converted:
    """Return the recipe of a file of mergekit. Raises ConfigError, naming file, line and key."""
    documents = [_Reader(document) for document in _documents(read_text(path), str(path))]
    named: dict[str, _Reader] = {}
    for reader in documents:
        name = reader.config.name
        if name is not None and name in named:
            raise reader.document.error(("name",), f"two documents are called {name!r}; rename one")
        if name is not None:
            named[name] = reader
    unnamed = [reader for reader in documents if reader.config.name is None]
    if len(unnamed) > 1:
        raise unnamed[1].document.error((), "two documents have no name; only that of the result may have none")
    outermost = unnamed[0] if unnamed else documents[-1]
    recipe = outermost.recipe(named, ())
    return Converted(replace(recipe, result=outermost.result()), tuple(note for one in documents for note in one.notes))


def _documents(text: str, file: str) -> Iterator[Document]:
    """Yield the documents of a file, each with the lines that it has there."""
    ends = [*(found.start() for found in _NEXT.finditer(text)), len(text)]
    start = 0
    for end in ends:
        part = _NEXT.sub("", text[start:end], count=1)
        if any(line.strip() and not line.lstrip().startswith("#") for line in part.splitlines()):
            yield parse_yaml("\n" * text.count("\n", 0, start) + part, file)
        start = end


class _Reader:
    """Converts one document; `notes` are gathered on the way."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.config = document.parse(Config)
        self.notes: list[str] = []
        self._named: Mapping[str, _Reader] = {}
        self._above: tuple[str, ...] = ()
        self._method = method_of(self.config.merge_method, document)

    def recipe(self, named: "Mapping[str, _Reader]", above: tuple[str, ...]) -> Merge | Stack:
        """Return what the document makes; `above` are the names of the documents that it is made for."""
        self._named, self._above = named, (*above, self.config.name or "")
        config = self.config
        given = [key for key in ("models", "slices", "modules") if getattr(config, key) is not None]
        if given == ["modules"]:
            raise self._error(("modules",), "parts of a model of several are not merged one by one here; write models")
        if len(given) != 1:
            raise self._error((), "there must be either models or slices")
        if config.models is not None:
            return self._whole(config.models)
        return self._sliced(config.slices or [])

    def result(self) -> Result:
        """Return how the result is written."""
        config = self.config
        if config.chat_template is not None:
            raise self._error(
                ("chat_template",), "the result keeps the chat template of its tokenizer; remove this, and write "
                "another template into the merged folder",
            )  # fmt: skip
        written, key = (config.out_dtype, "out_dtype") if config.out_dtype is not None else (config.dtype, "dtype")
        dtype = "base" if written is None else written.removeprefix("torch.")
        if dtype not in get_args(Dtype):
            raise self._error((key,), f"{written} is not written here; write float32, float16 or bfloat16")
        return Result(cast(Dtype, dtype), self._tokenizer())

    def inner(self, named: "Mapping[str, _Reader]", above: tuple[str, ...]) -> WeightRecipe:
        """Return the recipe for use in another document: what it says about its files does not count there."""
        for key in ("tokenizer", "tokenizer_source", "chat_template"):
            if getattr(self.config, key) is not None:
                raise self._error((key,), "this is kept of the outermost document only; write it there")
        found = self.recipe(named, above)
        written = self.config.out_dtype or self.config.dtype
        if written not in (None, "float32"):
            self._note(f"{self.config.name} is not rounded to {written} before it is merged further")
        return found

    def _whole(self, entries: Sequence[ModelEntry]) -> Merge | Stack:
        places = [("models", index) for index in range(len(entries))]
        if self._method is None:
            self._check_alone(entries, ("models",))
            return self._passed(entries[0], places[0], None, ())
        base = self.config.base_model
        return self._merge(entries, places, base, None, ())

    def _sliced(self, slices: Sequence[OutputSlice]) -> Merge | Stack:
        if not slices:
            raise self._error(("slices",), "the list is empty; name the layers of the result")
        made: list[Slice] = []
        for number, item in enumerate(slices):
            place: KeyPath = ("slices", number)
            if item.residual_weight is not None:
                raise self._error((*place, "residual_weight"), "no method reads it; remove it")
            for index, source in enumerate(item.sources):
                self._check_range(source, item.sources[0], (*place, "sources", index, "layer_range"))
            if self._method is None:
                self._check_alone(item.sources, (*place, "sources"))
                part = self._passed(item.sources[0], (*place, "sources", 0), item.parameters, place)
                made += part.slices
            else:
                places = [(*place, "sources", index) for index in range(len(item.sources))]
                base = item.base_model if item.base_model is not None else self.config.base_model
                made.append(Slice(self._merge(item.sources, places, base, item.parameters, place)))
        if len(made) == 1 and isinstance(made[0].recipe, Merge) and made[0].layers is None:
            return made[0].recipe
        return Stack(tuple(made), head="base" if made[0].recipe == made[-1].recipe else "last")

    def _merge(
        self,
        entries: Sequence[ModelEntry],
        places: Sequence[KeyPath],
        base: Model | None,
        own: Parameters | None,
        slice_: KeyPath,
    ) -> Merge:
        """Return the merge of the models of a slice, or of whole models (`slice_` is empty)."""
        method = cast(Method, self._method)
        where: KeyPath = (*slice_, "base_model") if slice_ else ("base_model",)
        recipes = [self._part(entry, (*place, "model")) for entry, place in zip(entries, places, strict=True)]
        for index, place in enumerate(places):
            if recipes[index] in recipes[:index]:
                raise self._error((*place, "model"), "this model is there already; add its weights up")
        outer = [(own, slice_), (self.config.parameters, ())]
        self._check_names([*((entry.parameters, place) for entry, place in zip(entries, places, strict=True)), *outer])
        named = [(self._same(entry.model, place), entry) for entry, place in zip(entries, places, strict=True)]
        chosen = None if base is None else self._same(base, where)
        at = next((index for index, (model, _) in enumerate(named) if model == chosen), None)
        root = None if chosen is None else chosen if at is None else recipes[at]
        if root is not None and at is None and slice_:
            raise self._error(where, "the base is none of the sources of the slice; add it to them with its layers")
        if root is None and method.base in ("base", "start"):
            raise self._error((), f"{self.config.merge_method} needs a base_model; add it")
        inputs: list[Input] = []
        for index, (entry, place) in enumerate(zip(entries, places, strict=True)):
            if index == at and method.base != "model":
                continue
            params = self._parameters(method.models, [(entry.parameters, place), *outer], place, slice_)
            inputs.append(Input(recipes[index], params))
        if method.base == "model" and root is not None and at is None:
            inputs.append(Input(root, self._parameters(method.models, outer, ("base_model",), slice_)))
        if not inputs:
            raise self._error(("models",), "there is no model besides the base; add one")
        params = self._parameters(method.merge, outer, slice_, slice_) | dict(method.besides)
        self._check_signs(method, inputs, params)
        return Merge(method.ours, tuple(inputs), root, params)

    def _passed(self, entry: ModelEntry, place: KeyPath, own: Parameters | None, slice_: KeyPath) -> Stack:
        """Return what passthrough makes of one model: its layers, and where all is scaled, a sum of one."""
        found = self._same(entry.model, (*place, "model"))
        outer = [(own, slice_), (self.config.parameters, ())]
        scopes = [(entry.parameters, place), *outer]
        self._check_names(scopes)
        layers = (entry.layer_range[0], entry.layer_range[1]) if isinstance(entry, SliceSource) else None
        scale = value_of(
            self._settings("scale", [(entry.parameters, place), *outer], slice_), SCALE, self.document, place
        )
        if scale is None or scale == 1:
            return Stack((Slice(found, layers),))
        part = found if layers is None else Stack((Slice(found, layers),))
        scaled = Merge("linear", (Input(part, {"weight": scale}),), params={"normalize": False})
        return Stack((Slice(scaled),))

    def _part(self, entry: ModelEntry, path: KeyPath) -> WeightRecipe:
        found = self._same(entry.model, path)
        if not isinstance(entry, SliceSource):
            return found
        return Stack((Slice(found, (entry.layer_range[0], entry.layer_range[1])),))

    def _same(self, model: Model, path: KeyPath) -> WeightRecipe:
        """Return the recipe of a model, with its adapter where it has one."""
        base, *adapter = (self._source(source, path) for source in named_sources(model, self.document, path))
        return Merge("task_arithmetic", (Input(adapter[0]),), base) if adapter else base

    def _source(self, source: Source, path: KeyPath) -> WeightRecipe:
        """Return a source, or what the document of that name makes."""
        if source.model not in self._named:
            return source
        if source.model in self._above:
            raise self._error(path, f"{source.model!r} is made of itself; use another model there")
        return self._named[source.model].inner(self._named, self._above)

    def _tokenizer(self) -> "Source | Literal['base', 'union'] | None":
        config = self.config
        if config.tokenizer is None:
            source, path = config.tokenizer_source, ("tokenizer_source",)
        else:
            for key in ("tokens", "pad_to_multiple_of"):
                if getattr(config.tokenizer, key):
                    raise self._error(("tokenizer", key), "this cannot be expressed here; remove it")
            if config.tokenizer_source is not None:
                raise self._error(("tokenizer_source",), "there is a tokenizer as well; remove one of them")
            source, path = config.tokenizer.source, ("tokenizer", "source")
        match source:
            case None | "union" | "base":
                return source
            case _:
                return self._whose(source, path)

    def _whose(self, source: Model, path: KeyPath) -> Source:
        """Return the model whose tokenizer is meant: for one with an adapter, or a merge, that which it is made on."""
        found = self._same(source, path)
        while isinstance(found, Merge) and found.base is not None:
            found = found.base
        if not isinstance(found, Source):
            raise self._error(path, "must be base, union, or one of the models")
        return found

    def _parameters(
        self,
        known: Mapping[str, Parameter],
        scopes: Sequence[Scope],
        path: KeyPath,
        slice_: KeyPath,
    ) -> dict[str, Value]:
        """Return parameters by our names."""
        found: dict[str, Value] = {}
        for name, parameter in known.items():
            settings = self._settings(name, scopes, slice_)
            value = value_of(settings, parameter, self.document, (*path, "parameters", name))
            if value is not None:
                found[parameter.ours] = value
        return found

    @staticmethod
    def _settings(name: str, scopes: Sequence[Scope], slice_: KeyPath) -> list[Setting]:
        return [
            Setting(params[name], (*place, "parameters", name), bool(slice_))
            for params, place in scopes
            if params is not None and name in params
        ]

    def _check_signs(self, method: Method, inputs: Sequence[Input], params: Mapping[str, Value]) -> None:
        """Refuse weights below zero where votes are averaged: there a mean is divided by their sum with its signs."""
        means = "mean" in [*scalars(params.get("merge_func", ""))]
        weights = [part for item in inputs for part in scalars(item.params.get("weight", 1.0))]
        if means and any(isinstance(weight, int | float) and weight < 0 for weight in weights):
            raise self._error(
                ("parameters", "normalize"),
                f"{method.ours} divides by the sum of the weights' magnitudes here, and some weights are negative; "
                "write normalize: false",
            )

    def _check_alone(self, entries: Sequence[ModelEntry], path: KeyPath) -> None:
        if len(entries) != 1:
            raise self._error(path, f"passthrough takes one model, and there are {len(entries)}")

    def _check_range(self, source: SliceSource, first: SliceSource, path: KeyPath) -> None:
        (start, end), (first_start, first_end) = source.layer_range, first.layer_range
        if start >= end:
            raise self._error(path, f"[{start}, {end}] is no range of layers; the second is the one after the last")
        if end - start != first_end - first_start:
            raise self._error(path, f"{end - start} layers, and the first source has {first_end - first_start}")

    def _check_names(self, scopes: Sequence[Scope]) -> None:
        self._note(*unused(self._method, scopes, self.document))

    def _note(self, *notes: str) -> None:
        self.notes += [note for note in notes if note not in self.notes]

    def _error(self, path: KeyPath, sentence: str) -> ConfigError:
        return self.document.error(path, sentence)
