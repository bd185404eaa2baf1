"""Where base and experts of a study stay beside an engine, and merging them there.

`plan` decides from sizes alone. A `Residence` in GPU memory is read by the kernels of `backends.weights.gpu`; one in
pinned memory of the host is copied to the GPU a batch ahead of them. What has no kernel there, and every recipe on a
CPU, is merged from mapped files by the store, which this leaves alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from evomerge.backends.weights.checkpoint import HEAD, Checkpoint
from evomerge.backends.weights.headers import Stored
from evomerge.backends.weights.plan import MergePlan, Plan
from evomerge.backends.weights.result import NAMES, float_type
from evomerge.backends.weights.statistics import Statistics
from evomerge.backends.weights.whole import Wholes
from evomerge.errors import CandidateError, ConfigError
from evomerge.strategies.merge.protocol import Stage, Summary, TensorContext

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from evomerge.backends.weights.gpu.work import DeviceMerge

    _Tensors = Mapping[tuple[Checkpoint, str], Tensor]

Place = Literal["gpu", "pinned", "files"]
Wish = Literal["auto", "gpu", "pinned", "files"]

BATCH = 1 << 28
"""Bytes of merged tensors that are computed together on a GPU, unless one tensor alone has more."""

_SHARE = 0.9  # of what is free may be taken: the system, and who else is there, want some of it
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Where:
    """Where models stay, and the bytes that they and the work on them take there and on the GPU."""

    place: Place
    models: int
    work: int


def plan(sizes: Mapping[str, int], free_gpu: int | None, free_host: int, wish: Wish, *, batch: int = BATCH) -> Where:
    """Return where models of these sizes stay: where it is wished, or with `auto` in the first place with room.

    All sizes are in bytes; `free_gpu` is None where the engine has no GPU, and `batch` what is merged together. In
    GPU memory, the work takes two batches of results and as much for what is known of tensors; from pinned memory,
    two batches of every model besides. Raises ConfigError where there is no room for what is wished.
    """
    models = sum(sizes.values())
    work = {"gpu": 4 * batch, "pinned": (4 + 2 * len(sizes)) * batch}
    if free_gpu is None:
        if wish in work:
            raise ConfigError(f"experts: {wish} needs an engine on a GPU, and this one has none; write auto or files")
        return Where("files", models, 0)
    fits = {
        "gpu": models + work["gpu"] <= _SHARE * free_gpu,
        "pinned": models <= _SHARE * free_host and work["pinned"] <= _SHARE * free_gpu,
    }
    for place in ("gpu", "pinned"):
        if wish in {"auto", place} and fits[place]:
            return Where(place, models, work[place])
        if wish == place:
            raise ConfigError(_no_room(place, models, work[place], free_gpu, free_host))
    return Where("files", models, 0)


def _no_room(place: str, models: int, work: int, free_gpu: int, free_host: int) -> str:
    on_gpu = models + work if place == "gpu" else work
    wanted = f"{on_gpu / _GIB:.1f} GiB of {free_gpu / _GIB:.1f} GiB that are free on the GPU"
    if place == "pinned":
        wanted = f"{models / _GIB:.1f} GiB of {free_host / _GIB:.1f} GiB that are free in memory, and {wanted}"
    return (
        f"experts: {place} would take {wanted}, of which a tenth stays free; write another place, or leave the engine "
        "less in args: {gpu-memory-utilization: ...}"
    )


def bytes_of(model: Checkpoint) -> int:
    """Return the bytes of a checkpoint's tensors, tied ones once."""
    return sum(tensor.size for tensor in model.stored.values())


class Residence:
    """Checkpoints whose tensors are held in one place, and merged on one device."""

    def __init__(self, place: Place, device: "torch.device", statistics: Statistics) -> None:
        """Hold nothing yet; `statistics` keeps on the device what is known of tensors whatever the parameters are."""
        self.place, self.device = place, device
        self._statistics = statistics
        self._held: dict[Checkpoint, Mapping[str, Tensor]] = {}

    def take(self, model: Checkpoint) -> None:
        """Read a checkpoint's tensors into their place, once. Files stay files."""
        if self.place == "files" or model in self._held:
            return
        held = {name: self._placed(model.read(name)) for name in model.stored}
        if HEAD not in held and (tied := model.find(HEAD)) is not None:
            held[HEAD] = next(held[name] for name, stored in model.stored.items() if stored == tied)
        self._held[model] = held

    def merges(self, plan: Plan) -> bool:
        """Return whether a plan is one for here: a checkpoint, or a merge of checkpoints by a method with a kernel."""
        if isinstance(plan, Checkpoint):
            return plan in self._held
        if not isinstance(plan, MergePlan) or plan.low_rank or find_spec("triton") is None:
            return False
        from evomerge.backends.weights.gpu.methods import has_kernel

        models = _models(plan)
        return has_kernel(plan.method) and bool(models) and all(model in self._held for model in models)

    def tensors(self, plan: Plan, outline: Mapping[str, Stored], batch: int = BATCH) -> "Iterator[tuple[str, Tensor]]":
        """Yield the names and tensors of a plan that `merges` is true for, in the order and dtypes of the outline.

        They are on the device; some are those that are held, and none is to be written to. Computed in float32 and
        rounded once. Raises CandidateError for a result that is not finite.
        """
        copied = (self._copied(plan, names) for names in _batches(outline, batch))
        waiting = next(copied, None)
        while waiting is not None:
            (names, ready), waiting = waiting, next(copied, None)  # the next batch is on its way before this is merged
            yield from self._computed(plan, {name: outline[name] for name in names}, ready()).items()

    def _placed(self, tensor: "Tensor") -> "Tensor":
        if self.place == "gpu":
            return tensor.to(self.device, copy=True)
        return tensor.pin_memory() if self.device.type == "cuda" else tensor.clone()

    def _copied(self, plan: Plan, names: Sequence[str]) -> "tuple[Sequence[str], Callable[[], _Tensors]]":
        """Begin to copy tensors of all models to the device; calling what is returned waits for them."""
        wanted = {(model, name): self._held[model][name] for model in _models(plan) for name in names}
        return names, _moved(wanted, self._stream, self.device)

    @cached_property
    def _stream(self) -> "torch.cuda.Stream | None":
        import torch

        return torch.cuda.Stream(self.device) if self.place == "pinned" and self.device.type == "cuda" else None

    def _computed(self, plan: Plan, outline: Mapping[str, Stored], tensors: "_Tensors") -> "dict[str, Tensor]":
        from evomerge.backends.weights.gpu.merging import merge_on_device

        out: dict[str, Tensor] = {}

        def merges() -> "Iterator[DeviceMerge]":
            import torch

            for name, announced in outline.items():
                if not isinstance(plan, MergePlan) or not announced.is_float:
                    kept = tensors[_models(plan)[0], name]
                    out[name] = kept.to(float_type(announced.dtype)) if announced.is_float else kept
                    continue
                out[name] = torch.empty(announced.shape, dtype=float_type(announced.dtype), device=self.device)
                yield _merge(plan, self._context(plan, name), tensors, out[name])

        if not merge_on_device(merges(), self._statistics):
            name = next(name for name in outline if not bool(out[name].isfinite().all()))
            raise CandidateError(f"the merged {name} overflows {NAMES[outline[name].dtype]}; use smaller weights")
        return out

    def _context(self, plan: MergePlan, name: str) -> TensorContext:
        context = plan.context(name)
        if not (stages := plan.stages(name)):
            return context
        wholes = Wholes(plan.staged, plan.identity, plan.context, partial(self._summary, plan), self._statistics)
        return replace(context, whole=wholes.of(name, stages))

    def _summary(self, plan: MergePlan, stage: Stage, context: TensorContext) -> Summary:
        from evomerge.backends.weights.gpu.merging import summary_on_device

        there = {(model, context.name): self._held[model][context.name].to(self.device) for model in _models(plan)}
        like = there[_models(plan)[0], context.name]
        return summary_on_device(stage, _merge(plan, context, there, like), self._statistics)


def _merge(plan: MergePlan, context: TensorContext, tensors: "_Tensors", out: "Tensor") -> "DeviceMerge":
    from evomerge.backends.weights.gpu.work import DeviceMerge

    models = [tensors[model, context.name] for model in _models(plan)]
    base = None if plan.base is None else models.pop(0)
    return DeviceMerge(plan.method, context, plan.parameters(context.name), base, tuple(models), out, plan.identity)


def _models(plan: Plan) -> tuple[Checkpoint, ...]:
    """Return base and inputs of a plan, in this order, or the checkpoint that it is; none where any is a merge."""
    if isinstance(plan, Checkpoint):
        return (plan,)
    if not isinstance(plan, MergePlan):
        return ()
    parts = (*(() if plan.base is None else (plan.base,)), *plan.inputs)
    found = tuple(part for part in parts if isinstance(part, Checkpoint))
    return found if len(found) == len(parts) else ()


def _batches(outline: Mapping[str, Stored], limit: int) -> Iterator[list[str]]:
    """Yield names of tensors that have `limit` bytes together, or of one that has more."""
    names: list[str] = []
    size = 0
    for name, tensor in outline.items():
        if names and size + tensor.size > limit:
            yield names
            names, size = [], 0
        names.append(name)
        size += tensor.size
    if names:
        yield names


def _moved(wanted: "_Tensors", stream: "torch.cuda.Stream | None", device: "torch.device") -> "Callable[[], _Tensors]":
    """Begin to copy tensors to a device, in a stream of their own where there is one; return what waits for them."""
    import torch

    if stream is None:
        there = {key: tensor.to(device) for key, tensor in wanted.items()}
        return lambda: there
    with torch.cuda.stream(stream):
        copies = {key: tensor.to(device, non_blocking=True) for key, tensor in wanted.items()}
        done = stream.record_event()

    def ready() -> "_Tensors":
        current = torch.cuda.current_stream(device)
        current.wait_event(done)
        for tensor in copies.values():
            tensor.record_stream(current)
        return copies

    return ready
