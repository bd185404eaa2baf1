"""What a merge loses when it is kept as an adapter of a chosen rank: part of its change, said as a share of it.

Errors are relative and in the Frobenius norm: the norm of what is missing over the norm of the whole change to the
base. Tensors that an adapter does not carry (embeddings, norms, biases) are missing altogether.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Loss:
    """The relative error of each module, of all of them together, and of the whole model.

    `left_out` has the share of the change in each tensor that the adapter does not carry, where it is not zero: its
    norm over that of the whole change.
    """

    rank: int
    modules: Mapping[str, float]
    carried: float
    left_out: Mapping[str, float]
    total: float

    @property
    def outside(self) -> float:
        """The share of the change in all tensors together that the adapter does not carry."""
        return sum(share**2 for share in self.left_out.values()) ** 0.5

    @property
    def worst(self) -> str:
        """The module with the largest relative error."""
        return max(self.modules, key=lambda name: self.modules[name])

    def sentences(self) -> str:
        """Say for a person what is lost."""
        said = [
            f"Rank {self.rank} leaves out {self.total:.2%} of the change to the base (its relative error in the "
            "Frobenius norm)."
        ]
        modules = f"The modules that the adapter carries have an error of {self.carried:.2%} together"
        said.append(f"{modules}, at most {self.modules[self.worst]:.2%} ({self.worst}).")
        if self.left_out:
            largest = max(self.left_out, key=lambda name: self.left_out[name])
            said.append(
                f"{len(self.left_out)} changed tensors cannot be part of an adapter; the largest share of the change "
                f"among them is {self.left_out[largest]:.2%} ({largest})."
            )
        return " ".join(said)


@dataclass(slots=True)
class Squares:
    """Sums of squares, gathered tensor by tensor: of what was changed, and of what of it is missing."""

    changed: float = 0.0
    missing: float = 0.0

    def add(self, changed: float, missing: float) -> None:
        """Add those of one tensor."""
        self.changed += changed
        self.missing += missing

    @property
    def error(self) -> float:
        """The relative error, 0 where nothing was changed."""
        return (self.missing / self.changed) ** 0.5 if self.changed else 0.0
