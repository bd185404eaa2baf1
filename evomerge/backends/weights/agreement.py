"""Do the models of a recipe fit each other? Everything that headers, configurations and tokenizers tell is compared.

The first thing that does not fit is refused with a sentence that names both files and the fix. Holes may be open;
values of tensors are looked at only by `check_values`.
"""

from evomerge.backends.weights.adapter import CONFIG, Adapter
from evomerge.backends.weights.checkpoint import Checkpoint
from evomerge.backends.weights.files import Opened
from evomerge.backends.weights.models import Models, merges, natural, weight_of
from evomerge.backends.weights.packs import check_packs
from evomerge.backends.weights.stacking import Form, check_slices
from evomerge.backends.weights.vocabulary import check_same
from evomerge.errors import ConfigError, SourceError
from evomerge.recipe.tree import Merge, Source, Stack, WeightRecipe, children, result_of, sources

_TRANSPOSED = ("gpt2", "openai-gpt")
_SAME_IN_CONFIG = ("model_type", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act")


def check(models: Models, recipe: WeightRecipe) -> None:
    """Raise SourceError for models that do not fit, ConfigError for what the result cannot be."""
    for merge in merges(recipe):
        _check_roles(models, merge)
    for _, child in children(recipe):
        _check_inner(child)
    check_packs(recipe)
    _check_forms(models, recipe)
    if result_of(recipe).tokenizer is not None:
        return
    folder = models.form(recipe).folder
    for model in _distinct(models, recipe):
        if model.folder != folder:
            check_same(folder, model.folder)


def check_values(models: Models, recipe: WeightRecipe) -> None:
    """Raise SourceError for the first tensor with a NaN or an infinity, and for a head that is tied and differs."""
    from evomerge.backends.weights.kernels.finite import all_finite

    for model in _distinct(models, recipe):
        if isinstance(model, Checkpoint):
            model.check_tie()
        for name, tensor in model.stored.items():
            if tensor.is_float and not all_finite(model.raw(name).elements, models.statistics.threads):
                raise SourceError(
                    f"{tensor.file}: the tensor {name} holds NaN or infinite values; copy or download the model again"
                )


def _check_inner(recipe: WeightRecipe) -> None:
    """Raise ConfigError where a recipe within another says how it is written."""
    result = result_of(recipe)
    for key, value in (("dtype", result.dtype), ("tokenizer", result.tokenizer)):
        if value is not None:
            raise ConfigError(
                f"{key}: it is written within a recipe, where nothing is stored; write it beside the outermost "
                "'method' or 'stack'"
            )
    for _, child in children(recipe):
        _check_inner(child)


def _check_forms(models: Models, recipe: WeightRecipe) -> None:
    """Compare the models of every merge and stack of a tree with its own first one, from the innermost outwards."""
    for _, child in children(recipe):
        if not isinstance(child, Source):
            _check_forms(models, child)
    if isinstance(recipe, Source):
        return
    reference: Form
    match recipe:
        case Merge():
            reference = models.form(recipe)
        case Stack():
            reference, slices = models.forms(recipe)
            for form in slices:
                _check_config(form, reference)
            check_slices(recipe, reference, slices)
    for _, child in children(recipe) if isinstance(recipe, Merge) else ():
        model = models.open(child) if isinstance(child, Source) else models.form(child)
        if isinstance(model, Adapter):
            _check_adapter(model, reference)
        elif model is not reference:
            _check_config(model, reference)
            _check_tensors(model, reference)


def _distinct(models: Models, recipe: WeightRecipe) -> list[Opened]:
    return list({id(model): model for model in map(models.open, sources(recipe))}.values())


def _check_roles(models: Models, merge: Merge) -> None:
    if isinstance(merge.base, Source):
        models.checkpoint(merge.base)
    for item in merge.inputs:
        if isinstance(merge.base, Stack) and isinstance(item.recipe, Source):
            model = models.open(item.recipe)
            if isinstance(model, Adapter):
                raise SourceError(
                    f"{model.folder} is an adapter for the layers of a whole model, and the base is a stack of layers; "
                    "write the adapter with its model as a merge of its own, and take the layers of that"
                )
        if merge.base is None and isinstance(item.recipe, Source):
            model = models.open(item.recipe)
            if isinstance(model, Adapter):
                named = f" ({CONFIG} names {model.base_name})" if model.base_name else ""
                raise SourceError(
                    f"{model.folder} is an adapter, and the merge has no base; write its model{named} as base:"
                )
    if merge.refactor is not None:
        if merge.refactor < 1:
            raise ConfigError(f"refactor: the rank must be at least 1, and it is {merge.refactor}")
        if models.adapter_base(merge) is None:
            raise ConfigError("refactor: the adapter would stand on the merge's base, and it has none; write base:")
        _check_factored(models, merge)


def _check_factored(models: Models, merge: Merge) -> None:
    """Raise SourceError for a base whose weights lie the other way round than adapters have them."""
    if isinstance(merge.base, Source):
        base = models.checkpoint(merge.base)
        if base.config.get("model_type") in _TRANSPOSED and not models.all_adapters(merge):
            raise SourceError(
                f"{base.folder / 'config.json'}: models of the type {base.config['model_type']} have their weights "
                "transposed, and their change is not factored; leave out refactor, or proxy"
            )


def _check_adapter(adapter: Adapter, base: Form) -> None:
    for module, entry in adapter.modules.items():
        name = weight_of(module)
        stored = base.stored.get(name)
        if stored is None:
            why = "tied to the embedding there" if base.find(name) is not None else "not there"
            raise SourceError(
                f"{adapter.files[0]} changes {name} of {base.folder}, which is {why}; "
                "give the model that the adapter was made for"
            )
        if stored.shape != entry.shape:
            raise SourceError(
                f"{adapter.files[0]} changes {name} as if its shape were {list(entry.shape)}, and in {stored.file} "
                f"it is {list(stored.shape)}; give the model that the adapter was made for"
            )


def _check_config(model: Form, reference: Form) -> None:
    for key in _SAME_IN_CONFIG:
        ours, theirs = reference.config.get(key), model.config.get(key)
        if ours is not None and theirs is not None and ours != theirs:
            raise SourceError(
                f"{model.folder / 'config.json'}: {key} is {theirs}, and in {reference.folder / 'config.json'} it is "
                f"{ours}; merge only models of one architecture"
            )


def _check_tensors(model: Form, reference: Form) -> None:
    for name in sorted(reference.stored, key=natural):
        expected, found = reference.stored[name], model.find(name)
        if found is None:
            if not expected.is_float:
                continue
            raise SourceError(
                f"{model.folder} has no tensor {name}, which is in {expected.file}; "
                "merge only models of one architecture"
            )
        if found.shape != expected.shape:
            raise SourceError(
                f"{found.file}: the tensor {name} has shape {list(found.shape)}, and in {expected.file} it has "
                f"{list(expected.shape)}; merge only models of one shape"
            )
        if found.is_float != expected.is_float:
            raise SourceError(
                f"{found.file}: the tensor {name} is {found.dtype}, and in {expected.file} it is {expected.dtype}; "
                "save both models with floats"
            )
    for name in sorted(model.stored, key=natural):
        if model.stored[name].is_float and reference.find(name) is None:
            raise SourceError(
                f"{model.stored[name].file} has the tensor {name}, which {reference.folder} has not; "
                "merge only models of one architecture"
            )
        if name not in reference.stored and model.stored[name].is_float:
            raise SourceError(
                f"{model.stored[name].file} has its own {name}, which {reference.folder} ties to its embedding; "
                "merge only models that tie the same weights"
            )
