"""How fast tensors in a GPU's memory are merged, beside a copy of that memory, in turn in one run. Prints Markdown.

    python -m benchmarks.merge.gpu --repeats 20

A base, experts and the result, each a synthetic Llama in bf16, lie in the GPU's memory. A candidate has new genes, and
its time is a person's: from the call until its result is there. Bytes are those that must be read and written once.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.merge.family import SIZES, Shape
from benchmarks.merge.tables import seconds, table
from evomerge.strategies.merge.protocol import Parameters, TensorContext
from evomerge.strategies.merge.registry import get

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from evomerge.backends.weights.gpu.work import DeviceMerge

SHAPES = {
    "1b": Shape(hidden=2048, layers=16, intermediate=8192, vocabulary=32000, heads=32, groups=8),
    "tiny": SIZES["tiny"],
}
METHODS = ("linear", "ties")
WANTED = 0.7
"""The share of the copy's bandwidth that a merge is to reach."""

_WEIGHT, _CHANGE = 0.02, 0.001  # standard deviations of a weight, and of an expert's change

Model = dict[str, "Tensor"]


class Wanted(argparse.Namespace):
    """What was asked for."""

    size: str
    experts: int
    repeats: int


@dataclass
class Times:
    """The bytes that a pass must move, and the seconds that passes took."""

    moved: int
    first: float = 0.0
    taken: list[float] = field(default_factory=list[float])

    @property
    def bandwidths(self) -> list[float]:
        """Bytes a second."""
        return [self.moved / taken for taken in self.taken]


@dataclass(frozen=True)
class Resident:
    """Models on a device, and room for a result."""

    base: Model
    experts: tuple[Model, ...]
    out: Model

    @classmethod
    def made(cls, shape: Shape, count: int, device: "torch.device") -> "Resident":
        """Return models whose numbers mean nothing, from a fixed seed."""
        import torch

        generator = torch.Generator(device).manual_seed(0)

        def drawn(size: tuple[int, ...], deviation: float) -> "Tensor":
            return torch.randn(size, generator=generator, device=device, dtype=torch.bfloat16).mul_(deviation)

        base = {name: drawn(size, _WEIGHT) for name, size in shape.tensors.items()}
        experts = tuple({name: drawn(w.shape, _CHANGE).add_(w) for name, w in base.items()} for _ in range(count))
        return cls(base, experts, {name: torch.empty_like(tensor) for name, tensor in base.items()})

    @property
    def bytes(self) -> int:
        """Of one model."""
        return sum(tensor.nbytes for tensor in self.base.values())

    def candidate(self, method_name: str, number: int) -> "list[DeviceMerge]":
        """Return the merges of a candidate, which has other weights and densities than one of another number."""
        from evomerge.backends.weights.gpu.work import DeviceMerge

        method, names = get(method_name), tuple(f"expert-{index}" for index in range(len(self.experts)))
        merge = {p.name: p.default for p in method.parameters if p.of == "merge"}
        own = {p.name: p.default for p in method.parameters if p.of == "input"}
        steps = [(number * 7 + index * 3) % 10 for index in range(len(names))]
        inputs = [own | {"weight": 0.5 + 0.1 * step} for step in steps]
        if "density" in own:
            inputs = [given | {"density": 0.2 + 0.06 * step} for given, step in zip(inputs, steps, strict=True)]
        params = Parameters(merge, tuple(inputs))
        return [
            DeviceMerge(
                method,
                TensorContext(name, 0.5, 1, 0, names),
                params,
                tensor,
                tuple(expert[name] for expert in self.experts),
                self.out[name],
                ("base", *names),
            )
            for name, tensor in self.base.items()
        ]


def measured(models: Resident, repeats: int, wait: Callable[[], None]) -> dict[str, Times]:
    """Measure the copy and every method in turn; compiling, and what is prepared once a study, falls into `first`."""
    from evomerge.backends.weights.gpu.merging import merge_on_device
    from evomerge.backends.weights.statistics import Statistics

    statistics_kept = Statistics(limit=64 << 30)
    flat = next(iter(models.experts[0].values())).new_empty(models.bytes // 2)
    other = flat.clone()
    found = {"copy": Times(2 * models.bytes)}
    found |= {
        name: Times((len(models.experts) + 1 + (get(name).needs.base == "required")) * models.bytes) for name in METHODS
    }
    for number in range(repeats + 1):
        for name, times in found.items():
            merges = [] if name == "copy" else models.candidate(name, number)
            wait()
            begin = time.perf_counter()
            if name == "copy":
                other.copy_(flat)
            elif not merge_on_device(merges, statistics_kept):
                raise ArithmeticError(f"{name} made numbers that are not finite")
            wait()
            taken = time.perf_counter() - begin
            if number:
                times.taken.append(taken)
            else:
                times.first = taken
    return found


def shown(found: dict[str, Times]) -> str:
    """Return the table."""
    copied = statistics.median(found["copy"].bandwidths)
    header = ("method", "GB moved", "seconds", "GB/s", "share of the copy's", "at least", "first, s")
    rows: list[Sequence[str]] = []
    for name, times in found.items():
        reached = statistics.median(times.bandwidths)
        least = "" if name == "copy" else f"{WANTED:.2f}"
        rows.append(
            (
                name,
                f"{times.moved / 1e9:.3g}",
                seconds(times.taken),
                f"{reached / 1e9:.4g}",
                f"{reached / copied:.2f}",
                least,
                f"{times.first:.3g}",
            )
        )
    return table(header, rows)


def on_device(wanted: Wanted) -> "tuple[torch.device, str, Callable[[], None]] | None":
    """Return the device, its name, and what waits for it; None where kernels cannot run."""
    import torch

    if torch.cuda.is_available():
        device = torch.device("cuda")
        return device, torch.cuda.get_device_name(device), torch.cuda.synchronize
    if os.environ.get("TRITON_INTERPRET") == "1" and wanted.size == "tiny":
        return torch.device("cpu"), "Triton's interpreter, whose times mean nothing", lambda: None
    return None


def asked() -> Wanted:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=SHAPES, default="1b", help="of each model (default: %(default)s)")
    parser.add_argument("--experts", type=int, default=8, help="how many are merged (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=20, help="how often each is measured (default: %(default)s)")
    return parser.parse_args(namespace=Wanted())


def main() -> None:
    """Measure, and print."""
    wanted = asked()
    print("### On a GPU\n")
    place = on_device(wanted)
    if place is None:
        print("Not measured: torch finds no GPU here.")
        return
    device, name, wait = place
    shape = SHAPES[wanted.size]
    models = Resident.made(shape, wanted.experts, device)
    print(f"{name}. {wanted.experts} experts and a base of {shape.parameters:,} parameters each, in bf16.")
    print(f"Medians of {wanted.repeats}, and their range.\n\n{shown(measured(models, wanted.repeats, wait))}")


if __name__ == "__main__":
    main()
