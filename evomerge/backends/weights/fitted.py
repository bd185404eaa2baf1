"""The models of a recipe that chooses the vocabulary of its result: each is seen with the rows of that vocabulary.

Everything that opens models through here (checks, plans, exports) works as if they had been trained with one tokenizer.
"""

from collections.abc import Mapping
from pathlib import Path

from evomerge.backends.weights.adapter import Adapter
from evomerge.backends.weights.checkpoint import Checkpoint
from evomerge.backends.weights.files import Opened
from evomerge.backends.weights.models import Models, weight_of
from evomerge.backends.weights.token_map import Target, remapped
from evomerge.backends.weights.union import union
from evomerge.backends.weights.vocabulary import Vocabulary, check_spelling, vocabulary
from evomerge.errors import ConfigError, SourceError
from evomerge.recipe.tree import Source, WeightRecipe, result_of, sources


class FittedModels(Models):
    """Opened folders by source, checkpoints with the rows of one vocabulary; `tokenizer` is the folder that has it."""

    def __init__(self, models: Models, replaced: Mapping[Checkpoint, Checkpoint], tokenizer: Path) -> None:
        super().__init__()
        self._models, self._replaced = models, replaced
        self.tokenizer = tokenizer

    def located(self, source: Source, root: Path) -> tuple[Source, Opened]:
        """Return a source with its absolute path or hub id, and what it holds. Raises SourceError."""
        found, model = self._models.located(source, root)
        return found, self._fitted(model)

    def open(self, source: Source) -> Opened:
        """Return what a source holds. Raises SourceError."""
        return self._fitted(self._models.open(source))

    def _fitted(self, model: Opened) -> Opened:
        return self._replaced.get(model, model) if isinstance(model, Checkpoint) else model


def fitted(models: Models, recipe: WeightRecipe) -> FittedModels:
    """Return the models of a recipe that chooses a tokenizer, fitted to it.

    Raises ConfigError for a choice that is none of the recipe's models, SourceError for models whose tokens cannot be
    told, or for an adapter that changes rows which are not the same any more.
    """
    chosen = result_of(recipe).tokenizer
    opened = [models.open(source) for source in dict.fromkeys(sources(recipe))]
    found = {model.folder: model for model in opened if isinstance(model, Checkpoint)}
    base = found[models.form(recipe).folder]
    tokens = {model: _tokens(model) for model in dict.fromkeys((base, *found.values()))}
    for model in tokens:
        check_spelling(base.folder, model.folder)
    owner = models.open(chosen) if isinstance(chosen, Source) else base
    if not isinstance(owner, Checkpoint) or owner not in tokens:
        raise ConfigError(f"tokenizer.source: {owner.folder} is none of the whole models of the recipe; write base, "
                          "union, or one of those")  # fmt: skip
    target = Target(tokens[owner], owner.vocabulary_rows, owner.folder, owner)
    if chosen == "union":
        folder, united = union(base.folder, [(model.folder, known) for model, known in tokens.items() if model != base])
        target = Target(united, max(base.vocabulary_rows, *(number + 1 for number in united.values())), folder, base)
    replaced = remapped(tokens, target)
    for adapter in (model for model in opened if isinstance(model, Adapter)):
        _check_adapter(adapter, replaced)
    return FittedModels(models, replaced, target.folder)


def _tokens(model: Checkpoint) -> Vocabulary:
    """Return the tokens of a model that it has rows for."""
    known = vocabulary(model.folder)
    if known is None:
        raise SourceError(
            f"{model.folder} has no tokenizer that lists its tokens, so its rows cannot be matched with those of others"
        )
    return {token: number for token, number in known.items() if number < model.vocabulary_rows}


def _check_adapter(adapter: Adapter, replaced: Mapping[Checkpoint, Checkpoint]) -> None:
    for module in adapter.modules:
        if any(
            model is not other and weight_of(module) in model.vocabulary_tensors for model, other in replaced.items()
        ):
            raise SourceError(
                f"{adapter.files[0]} changes {weight_of(module)}, whose rows are those of other tokens here; merge the "
                "adapter into its model first, and then the models"
            )
