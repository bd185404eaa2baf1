"""Whether a recipe's result can be swapped into a running model: as far as configurations and folders tell.

Pure functions on what is on disk, without vLLM, so that a client knows before it asks, and a worker checks again.
"""

from collections.abc import Mapping
from typing import Any

from evomerge.backends.weights.artifact import Artifact, CheckpointArtifact
from evomerge.backends.weights.headers import Stored
from evomerge.backends.weights.tensors import read_json

_OF_STORING = frozenset({"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"})
_OF_ASKING = frozenset({"bos_token_id", "eos_token_id", "pad_token_id"})
_REMEDY = "a running server takes weights of its own model alone; use the backend local"


def config_of(artifact: Artifact) -> Mapping[str, Any]:
    """Return the configuration that an artifact's checkpoint has. Raises SourceError for one that cannot be read."""
    changed = artifact.config if isinstance(artifact, CheckpointArtifact) else None
    return read_json(artifact.skeleton / "config.json") if changed is None else changed


def fits(artifact: Artifact, served_config: Mapping[str, Any]) -> str | None:
    """Return a sentence that says why the artifact's tensors cannot take the place of a served model's, or None.

    `served_config` is the config.json that the server was started with. A key that is left out is one that is false
    or none. In which float type tensors are stored makes no difference, nor do tokens that begin or end a text: who
    asks sends tokens, and says where to stop.
    """
    ours, theirs = _deciding(config_of(artifact)), _deciding(served_config)
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            there, here = _said(theirs, key), _said(ours, key)
            return f"the served model has {key} {there}, and the recipe's result has {here}; {_REMEDY}"
    return None


def same_tensors(outline: Mapping[str, Stored], served: Mapping[str, Stored]) -> str | None:
    """Return a sentence that names a tensor which one of two checkpoints lacks, or has in another form; or None."""
    if missing := min(served.keys() - outline.keys(), default=None):
        return f"the recipe's result lacks the tensor {missing} of the served model; {_REMEDY}"
    if foreign := min(outline.keys() - served.keys(), default=None):
        return f"the served model has no tensor {foreign}, which the recipe's result has; {_REMEDY}"
    for name, tensor in outline.items():
        there = served[name]
        if tensor.shape != there.shape:
            shapes = f"{list(tensor.shape)} in the recipe's result and {list(there.shape)} in the served model"
            return f"the tensor {name} is {shapes}; {_REMEDY}"
        if tensor.dtype != there.dtype and not (tensor.is_float and there.is_float):
            kinds = f"{tensor.dtype} in the recipe's result and {there.dtype} in the served model"
            return f"the tensor {name} is {kinds}; {_REMEDY}"
    return None


def _deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: value for key, value in config.items() if key not in _OF_STORING | _OF_ASKING}
    return {key: value for key, value in told.items() if value is not None and value is not False}


def _said(config: Mapping[str, Any], key: str) -> str:
    return repr(config[key]) if key in config else "not set"
