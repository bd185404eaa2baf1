"""What an exported folder says about itself: recipe.yaml, mergekit.yaml where it can be expressed, and the model card.

All speak of the models by the names that a person wrote, never by paths of the machine that made the merge.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import yaml

from evomerge.backends.weights.artifact import AdapterArtifact, Artifact
from evomerge.backends.weights.card import model_card
from evomerge.backends.weights.headers import Stored
from evomerge.backends.weights.mergekit import NotExpressible, to_mergekit
from evomerge.backends.weights.store import WeightStore
from evomerge.recipe.tree import WeightRecipe, sources
from evomerge.recipe.writing import to_plain


def write_words(
    folder: Path, store: WeightStore, recipe: WeightRecipe, artifact: Artifact, *, title: str, extra: str
) -> None:
    """Write recipe.yaml, README.md and, where the recipe can be said to mergekit, mergekit.yaml."""
    written = store.as_written(recipe)
    text = yaml.safe_dump({"recipe": to_plain(written)}, sort_keys=False, allow_unicode=True)
    known = "".join(f"# {json.dumps(item.model)}: {item.fingerprint}\n" for item in dict.fromkeys(sources(written)))
    head = "# `evomerge merge` makes this model again. The fingerprints of what it was made from:\n"
    _write(folder / "recipe.yaml", head + known + text)
    try:
        if any(store.is_adapter(source) for source in sources(recipe)):
            raise NotExpressible("mergekit merges whole models, and here are adapters")
        config = to_mergekit(written, store.layout(recipe), _dtype(store.outline(recipe).values()))
    except NotExpressible as reason:
        mergekit = f"There is no mergekit.yaml: {reason}."
    else:
        _write(folder / "mergekit.yaml", config)
        mergekit = "`mergekit.yaml` says the same to mergekit."
    base = store.name_of(artifact.base) if isinstance(artifact, AdapterArtifact) else None
    loss = artifact.loss if isinstance(artifact, AdapterArtifact) else None
    card = model_card(written, title=title, base=base, loss=loss, mergekit=mergekit, recipe_yaml=text, extra=extra)
    _write(folder / "README.md", card)


def _dtype(tensors: Iterable[Stored]) -> str:
    """Return the float type that most bytes are stored in. Raises NotExpressible where nothing is stored as floats."""
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.is_float:
            sizes[tensor.dtype] += tensor.size
    if not sizes:
        raise NotExpressible("it has no floating-point tensor, and mergekit wants a float type")
    return sizes.most_common(1)[0][0]


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
