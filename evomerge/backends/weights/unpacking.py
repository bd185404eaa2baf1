"""Unpacking: a unified model, its base and one of its packs become a model again, nearly the one that was merged.

The rebuilt model is written as an export is: whole or not at all, and never over something that is there.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.backends.weights.checkpoint import Checkpoint
from evomerge.backends.weights.export import OF_MODEL, OF_TOKENIZER, copy_file, free_bytes, new_folder
from evomerge.backends.weights.packs import FACTOR, FOLDER, INDEX, in_float32, pack_outline
from evomerge.backends.weights.raw import Raw
from evomerge.backends.weights.tensors import TensorFiles, read_json
from evomerge.backends.weights.writing import write_model
from evomerge.errors import ConfigError, SourceError
from evomerge.recipe.tree import WeightRecipe, recipe_id

if TYPE_CHECKING:
    from evomerge.backends.weights.store import WeightStore


def unpack(
    store: "WeightStore",
    folder: Path,
    name: str,
    base: WeightRecipe,
    out: Path,
    *,
    free: Callable[[Path], int] = free_bytes,
) -> None:
    """Write the model that the pack `name` of the unified model in `folder` stands for; `base` is its resolved base.

    Its tensors are base + factor * mask * (unified - base), computed in float32 and stored in the unified model's
    dtypes. Raises ConfigError for a folder without that pack, for another base, or where `out` is taken; SourceError
    for a pack that is broken.
    """
    unified, pack = Checkpoint(folder), _opened(folder, name, base)
    copied = [file for known in (*OF_MODEL, *OF_TOKENIZER) if (file := folder / known).is_file()]
    size = sum(tensor.size for tensor in unified.stored.values()) + sum(file.stat().st_size for file in copied)
    with new_folder(out, size, free) as beside:
        for file in copied:
            copy_file(file, beside / file.name)
        write_model(beside, unified.stored, _rebuilt(store, unified, pack, base))
        said = f"Nearly the model `{name}`, rebuilt from a unified model, its base and a pack (EMR-Merging)."
        (beside / "README.md").write_text(f"# {out.absolute().name}\n\n{said}\n", encoding="utf-8")


def _opened(folder: Path, name: str, base: WeightRecipe) -> TensorFiles:
    index = folder / FOLDER / INDEX
    if not index.is_file():
        raise ConfigError(f"{folder} has no packs; merge with `method: emr` and `packs: true` to make them")
    said = read_json(index)
    known: list[Any] = said.get("packs", [])
    if name not in known:
        raise ConfigError(f"{folder} has no pack {name!r}; there are {', '.join(map(str, known))}")
    if said.get("base") != recipe_id(base):
        raise ConfigError(f"{index}: the packs stand on another base than the one that is there now; restore that")
    file = folder / FOLDER / f"{name}.safetensors"
    pack = TensorFiles([file])
    for tensor, wanted in pack_outline(Checkpoint(folder).stored).items():
        found = pack.stored.get(tensor)
        if found is None or (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
            raise SourceError(f"{file}: its {tensor} does not fit the unified model beside it; make the packs again")
    return pack


def _rebuilt(
    store: "WeightStore", unified: Checkpoint, pack: TensorFiles, base: WeightRecipe
) -> Iterator[tuple[str, Raw]]:
    import numpy as np
    import torch

    factor = float(pack.raw(FACTOR).elements[0])
    for name, origin in store.tensors(in_float32(store, base)):
        stored = unified.stored[name]
        if not stored.is_float:
            yield name, unified.raw(name)
            continue
        bits = np.unpackbits(pack.raw(name).elements, count=stored.elements, bitorder="little")
        mask = torch.from_numpy(bits).reshape(stored.shape)
        out = Raw.empty(stored.dtype, stored.shape)
        out.tensor().copy_(unified.float32(name).sub_(origin).mul_(factor).mul_(mask).add_(origin))
        yield name, out
