"""The exact sum of adapters, for a server that loads adapters and merges none: factors laid side by side.

`b` of each adapter carries its weight and its scale, so that the result is sum w_i s_i B_i A_i whatever the ranks and
signs. A density keeps that share of the entries of each `a`, the largest, and leaves `b` as it is (Evo-Merging's
denoising; 2025, Black-box Model Merging for Language-Model-as-a-Service). What is read of an adapter is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.backends.weights.adapter_folder import write_adapter
from evomerge.backends.weights.artifact import AdapterArtifact, LowRank
from evomerge.backends.weights.models import module_of
from evomerge.backends.weights.store import WeightStore
from evomerge.errors import CandidateError, ConfigError
from evomerge.recipe.tree import Input, Merge, Source

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Part:
    """An adapter that goes into a sum: its folder, its weight, and the share of its entries that is kept."""

    folder: str
    weight: float
    density: float = 1.0


@dataclass(frozen=True, slots=True)
class _Read:
    """An adapter that was read: the base that it belongs to, and its factors by module."""

    base: Source
    factors: Mapping[str, LowRank]


class Sums:
    """Sums of adapters of the base in a folder; theirs can be read here as well."""

    def __init__(self, base: str) -> None:
        self._base, self._store = Source(base), WeightStore()
        self._read: dict[str, _Read] = {}

    def rank(self, folder: str) -> int:
        """Return the rank of an adapter. Raises ConfigError where it or the base cannot be read, or do not fit."""
        return self._artifact(folder)[1].rank

    def write(self, folder: Path, parts: Sequence[Part]) -> None:
        """Write the sum as an adapter into an empty folder. Raises ConfigError, CandidateError, OSError."""
        import torch

        read = [(self._of(part.folder), part) for part in parts]
        merged: dict[str, LowRank] = {}
        for module in dict.fromkeys(name for one, _ in read for name in one.factors):
            there = [(one.factors[module], part) for one, part in read if module in one.factors]
            a = torch.cat([kept(low.a, part.density) for low, part in there])
            b = torch.cat([low.b * part.weight for low, part in there], dim=1)
            if not bool(torch.isfinite(b).all()):
                raise CandidateError(f"the merged {module} overflows float32; use smaller weights")
            merged[module] = LowRank(a=a, b=b)
        base = read[0][0].base
        write_adapter(folder, merged, base, map(module_of, self._store.outline(base)))

    def _of(self, folder: str) -> _Read:
        if folder not in self._read:
            recipe, artifact = self._artifact(folder)
            self._read[folder] = _Read(artifact.base, self._store.low_rank(recipe))
        return self._read[folder]

    def _artifact(self, folder: str) -> tuple[Merge, AdapterArtifact]:
        """Return the recipe of an adapter alone, with its models found, and what it becomes."""
        recipe = self._store.resolve(Merge("task_arithmetic", (Input(Source(folder)),), self._base), Path.cwd())
        artifact = self._store.artifact(recipe)
        if not isinstance(recipe, Merge) or not isinstance(artifact, AdapterArtifact):
            raise ConfigError(f"{folder}: this is no adapter")
        return recipe, artifact


def kept(a: "Tensor", density: float) -> "Tensor":
    """Return a factor with only the largest share of its entries; of equal ones at the border all are kept."""
    if density >= 1:
        return a
    import torch

    if density <= 0:
        return torch.zeros_like(a)
    count = max(1, round(a.numel() * density))
    border = a.abs().flatten().topk(count).values[-1]
    return torch.where(a.abs() >= border, a, torch.zeros_like(a))
