"""A configuration for layers that come from several models: their number, and every list that has an entry a layer.

Which layer is of which kind is written in three ways: as a list with one entry a layer, as a list of layer numbers, or
as a rule about numbers (every fourth layer). The first two are rewritten; a rule cannot be, and is refused unless a
list beside it says the same.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from evomerge.errors import SourceError

_NUMBER = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_NUMBERED = (
    "attn_layer_indices",
    "cross_attention_layers",
    "full_attn_idxs",
    "global_attn_indexes",
    "global_attention_blocks",
    "mlp_only_layers",
    "moe_layers",
    "ple_layer_ids",
)
_NO_LAYERS = ("architectures", "keys_to_ignore_at_inference")
_RULES: Mapping[str, tuple[Any, tuple[str, ...]]] = {
    "attn_layer_period": (None, ("layers_block_type", "layer_types")),
    "cross_layer_interval": (1, ()),
    "decoder_sparse_step": (1, ("mlp_layer_types",)),
    "expert_layer_period": (None, ("layers_block_type",)),
    "first_k_dense_replace": (0, ("mlp_layer_types",)),
    "full_attention_interval": (None, ("layer_types",)),
    "global_attn_every_n_layers": (None, ("layer_types",)),
    "interleave_moe_layer_step": (None, ("moe_layers",)),
    "moe_layer_freq": (1, ("mlp_layer_types",)),
    "moe_layer_interval": (1, ()),
    "no_rope_layer_interval": (None, ("no_rope_layers",)),
    "num_kv_shared_layers": (0, ()),
    "sliding_window_pattern": (None, ("layer_types",)),
    "use_sliding_window": (False, ("layer_types",)),
}
"""Rules about layer numbers: the value, if any, that treats all layers alike, and lists that say what the rule says."""


def layers_in(config: Mapping[str, Any]) -> int | None:
    """Return how many layers a configuration says there are, None where it does not say so."""
    text = _text(config)
    return next((text[key] for key in _NUMBER if isinstance(text.get(key), int)), None)


def stacked_config(base: Mapping[str, Any], layers: Sequence[tuple[Mapping[str, Any], int, Path]]) -> dict[str, Any]:
    """Return `base` for a model of the layers given, each as its model's configuration, its number there, its folder.

    Raises SourceError for a configuration that does not tell of what kind a single layer is.
    """
    text = dict(_text(base))
    kinds = [(_text(config), number, folder) for config, number, folder in layers]
    for config, _, folder in kinds:
        _refuse_rules(config, folder)
    keys = {key for config, _, _ in kinds for key in config if _is_per_layer(key, config)}
    for key in sorted(keys):
        text[key] = _picked(key, kinds)
    for key in _NUMBERED:
        if any(config.get(key) for config, _, _ in kinds):
            found = [at for at, (config, number, _) in enumerate(kinds) if number in (config.get(key) or ())]
            text[key] = found
    text |= {key: len(layers) for key in _NUMBER if key in text}
    return {**base, "text_config": text} if _text(base) is not base else text


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a configuration that is about the language model."""
    inner = config.get("text_config")
    if isinstance(inner, dict) and not any(key in config for key in _NUMBER):
        return cast(dict[str, Any], inner)
    return config


def _is_per_layer(key: str, config: Mapping[str, Any]) -> bool:
    value, count = config[key], layers_in(config)
    if key in _NUMBERED or key in _NO_LAYERS or key.endswith(("_id", "_ids")):
        return False
    listed = isinstance(value, list) or (isinstance(value, str) and key.endswith("_pattern"))
    return listed and len(cast("list[Any] | str", value)) == count


def _picked(key: str, kinds: Sequence[tuple[Mapping[str, Any], int, Path]]) -> list[Any] | str:
    """Return a list with one entry a layer (or a text with one letter), each from its model's own."""
    entries: list[Any] = []
    for config, number, folder in kinds:
        if key not in config or not _is_per_layer(key, config):
            raise SourceError(
                f"{folder / 'config.json'} has no {key} with an entry for each layer, and that of another model of the "
                "stack has; save the model again with the same version of transformers"
            )
        entries.append(config[key][number])
    return "".join(entries) if isinstance(kinds[0][0][key], str) else entries


def _refuse_rules(config: Mapping[str, Any], folder: Path) -> None:
    for key, (harmless, lists) in _RULES.items():
        value = config.get(key)
        if value is None or value == harmless or any(_has_list(config, name) for name in lists):
            continue
        fix = f"save the model with a version of transformers that writes {lists[0]}" if lists else "stack other models"
        raise SourceError(
            f"{folder / 'config.json'}: {key} ({value}) says by number of which kind a layer is, and a stack numbers "
            f"layers anew; {fix}"
        )


def _has_list(config: Mapping[str, Any], key: str) -> bool:
    return isinstance(config.get(key), list)
