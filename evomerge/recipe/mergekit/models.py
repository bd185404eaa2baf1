"""How mergekit names a model: `path`, `path@revision`, `path+adapter`, or a map that says the same."""

from typing import Any

from evomerge.recipe.mergekit.grammar import Model
from evomerge.recipe.reading import Document, KeyPath
from evomerge.recipe.tree import Source


def named_sources(model: Model, document: Document, path: KeyPath) -> list[Source]:
    """Return the model, and the adapter on it where there is one. Raises ConfigError, naming the key."""
    if isinstance(model, dict):
        return _mapped(model, document, path)
    parts = model.split("+")
    if len(parts) > 2:
        raise document.error(path, f"{model!r} is no model; write model, or model+adapter")
    return [_source(part, document, path) for part in parts]


def _mapped(model: dict[str, Any], document: Document, path: KeyPath) -> list[Source]:
    for key in model:
        if key not in ("model", "lora"):
            raise document.error((*path, key), "only model and lora are read here; remove it")
    found: list[Source] = []
    for key in ("model", "lora"):
        match model.get(key):
            case None if key == "lora":
                pass
            case str(text):
                found.append(_source(text, document, path))
            case {"path": str(text), "revision": str(revision)}:
                found.append(Source(text, revision))
            case {"path": str(text)}:
                found.append(_source(text, document, path))
            case _:
                raise document.error((*path, key), "must be a path, or a map with path and revision")
    return found


def _source(text: str, document: Document, path: KeyPath) -> Source:
    name, at, revision = text.partition("@")
    if not name or "@" in revision or (at and not revision):
        raise document.error(path, f"{text!r} is no model; write a path, or path@revision")
    return Source(name, revision or None)
