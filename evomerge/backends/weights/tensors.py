"""The tensors of a model folder: one safetensors file, or several with an index; mapped into memory, read one by one.

A tensor that is read is a view of the file: what is written to it stays in this process.
"""

import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evomerge.backends.weights.headers import Stored, read_header
from evomerge.backends.weights.raw import Raw
from evomerge.errors import SourceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class TensorFiles:
    """The tensors of some safetensors files, by name.

    Raises SourceError for broken files, and for a name that two of them hold.
    """

    def __init__(self, files: list[Path]) -> None:
        self.files = tuple(files)
        self.stored: Mapping[str, Stored] = _united(self.files)
        self._mapped: dict[Path, NDArray[np.uint8]] = {}
        self._views: dict[str, Raw] = {}

    def raw(self, name: str) -> Raw:
        """Return a tensor as it is stored, as a view of the file."""
        known = self._views.get(name)
        if known is None:
            known = self._views[name] = self._view(name)
        return known

    def _view(self, name: str) -> Raw:
        stored = self.stored[name]
        if stored.file not in self._mapped:
            self._mapped[stored.file] = _mapped(stored.file)
        data = self._mapped[stored.file][stored.begin : stored.begin + stored.size]
        return Raw.view(data, stored.dtype, stored.shape)

    def read(self, name: str) -> "Tensor":
        """Return a tensor in its stored dtype, as a view of the file that must not be written to."""
        return self.raw(name).tensor()

    def float32(self, name: str) -> "Tensor":
        """Return a float32 copy of a tensor."""
        import torch

        return self.read(name).to(torch.float32, copy=True)


def all_finite(tensor: "Tensor") -> bool:
    """Return whether a tensor of floats holds neither NaN nor infinity, in one pass that stores nothing.

    Either one would be its least or greatest element; looking for those takes a fortieth of `isfinite().all()` in bf16.
    """
    import torch

    return all(bool(extreme.isfinite()) for extreme in torch.aminmax(tensor))


def read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object. Raises SourceError naming the file."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"{file} cannot be read ({error.strerror}); check the path and its permissions") from None
    except (ValueError, RecursionError):
        raise SourceError(f"{file} is not readable JSON; copy or download it again") from None
    if not isinstance(found, dict):
        raise SourceError(f"{file} should hold a JSON object; copy or download it again")
    return cast(dict[str, Any], found)


def model_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint, in the order of their names.

    Raises SourceError when there is none, when a shard is missing, and when the index does not agree with the shards.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise SourceError(no_tensors(folder, "model.safetensors"))
    placed = _index(index)
    files = [folder / name for name in sorted(set(placed.values()))]
    for file in files:
        if not file.is_file():
            raise SourceError(f"{index} names the shard {file.name}, which is not there; copy or download it again")
    tensors = {file.name: read_header(file).keys() for file in files}
    for name, shard in placed.items():
        if name not in tensors[shard]:
            raise SourceError(
                f"{index} places the tensor {name} in {shard}, which does not hold it; save the model again"
            )
    for shard, names in tensors.items():
        for name in names:
            if placed.get(name) != shard:
                raise SourceError(
                    f"{folder / shard} holds the tensor {name}, which {index.name} does not place there; "
                    "save the model again"
                )
    return files


def no_tensors(folder: Path, wanted: str) -> str:
    """Return the sentence for a folder without safetensors."""
    for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf"):
        for file in sorted(folder.glob(pattern)):
            if file.name != "training_args.bin":
                return (
                    f"{file}: only safetensors are read, because loading other formats can run code or lose precision; "
                    "load it with transformers and call save_pretrained to get safetensors"
                )
    return f"{folder} holds no {wanted}; give a folder written by save_pretrained"


def _index(index: Path) -> dict[str, str]:
    placed: Any = read_json(index).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise SourceError(f"{index} has no weight_map; save the model again")
    for name, shard in cast(dict[str, Any], placed).items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise SourceError(
                f"{index} places the tensor {name} in {shard!r}, which is not a safetensors file beside it"
            )
    return cast(dict[str, str], placed)


def _united(files: tuple[Path, ...]) -> dict[str, Stored]:
    stored: dict[str, Stored] = {}
    for file in files:
        for name, tensor in read_header(file).items():
            if name in stored:
                raise SourceError(
                    f"{file} and {stored[name].file.name} both hold the tensor {name}; save the model again"
                )
            stored[name] = tensor
    return stored


def _mapped(file: Path) -> "NDArray[np.uint8]":
    """Return the bytes of a file; its pages are read when they are looked at, and private once they are written to."""
    import numpy as np

    try:
        with file.open("rb") as stream:
            return np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
    except OSError as error:
        raise SourceError(f"{file} cannot be mapped ({error.strerror}); check the disk it is on") from None
