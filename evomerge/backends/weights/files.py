"""Finding models: what a name in a recipe stands for, a folder on this machine or a model of the hub.

A folder is a full checkpoint, or a PEFT adapter when it holds adapter_config.json. Hub models come from the local cache
or the network through huggingface_hub; only safetensors, JSON and text files are ever fetched.
"""

import re
from pathlib import Path

from evomerge.backends.weights.adapter import CONFIG, Adapter
from evomerge.backends.weights.checkpoint import Checkpoint
from evomerge.errors import SourceError
from evomerge.recipe.tree import Source

Opened = Checkpoint | Adapter

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
_FETCHED = ("model*.safetensors", "adapter_model.safetensors", "*.json", "*.txt", "*.jinja", "*.model")


def located(source: Source, root: Path) -> tuple[Source, Path]:
    """Return the source with an absolute path or as a hub id, and its folder. Raises SourceError for neither."""
    folder = (root / Path(source.model).expanduser()).absolute()
    if folder.is_dir():
        if source.revision is not None:
            raise SourceError(f"{folder} is a folder, and revision: is for models of the hub; remove the revision")
        return Source(str(folder.resolve())), folder.resolve()
    if folder.exists():
        raise SourceError(f"{folder} is a file; give the folder that holds the model")
    if not _HUB_ID.match(source.model):
        raise SourceError(f"{folder} does not exist; correct the path of the model")
    return Source(source.model, source.revision), _snapshot(source, folder)


def opened(folder: Path) -> Opened:
    """Return the checkpoint or adapter in a folder. Raises SourceError when it is neither, or broken."""
    if (folder / CONFIG).is_file():
        return Adapter(folder)
    if not (folder / "config.json").is_file():
        raise SourceError(f"{folder} holds neither config.json nor {CONFIG}; give a folder written by save_pretrained")
    return Checkpoint(folder)


def base_of(adapter: Adapter, root: Path) -> Source:
    """Return the base that an adapter's own configuration names.

    A relative path counts from `root`, then from each folder above the adapter. Raises SourceError when it names none.
    """
    name = adapter.base_name
    if name is None:
        raise SourceError(
            f"{adapter.folder / CONFIG} names no base_model_name_or_path; write the model it was made for as base:"
        )
    for start in (root, *adapter.folder.parents):
        folder = (start / Path(name).expanduser()).absolute()
        if (folder / "config.json").is_file():
            return Source(str(folder))
    revision = adapter.config.get("revision")
    return Source(name, revision if isinstance(revision, str) else None)


def _snapshot(source: Source, folder: Path) -> Path:
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]  # a progress bar in its signature
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = source.model if source.revision is None else f"{source.model} at revision {source.revision}"
    try:
        return Path(snapshot_download(source.model, revision=source.revision, allow_patterns=list(_FETCHED)))
    except HFValidationError as error:
        raise SourceError(
            f"{source.model} is neither a folder ({folder}) nor a name a hub model can have: {error}"
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceError(
            f"{source.model} is no folder ({folder} does not exist), and the hub's {wanted} is neither in the local "
            f"cache nor reachable ({reason}); correct the path, or fetch the model where there is a network"
        ) from None
