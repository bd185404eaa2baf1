"""Merging tensors that live on one device, by kernels where the method has one, else by its formula.

Both compute in float32 and round once, when the result is written. What does not depend on parameters is taken from
statistics, whose limit should be what the device has to spare: what is kept here is kept there.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from evomerge.backends.weights.gpu.batches import Batch, Variant
from evomerge.backends.weights.gpu.methods import job_of
from evomerge.backends.weights.gpu.work import DeviceMerge, DeviceWork
from evomerge.backends.weights.statistics import Statistics
from evomerge.strategies.merge.protocol import Stage, Summary
from evomerge.strategies.merge.whole import OfInputs, delta_magnitudes

if TYPE_CHECKING:
    from torch import Tensor

_ELEMENTS = 1 << 27  # that are launched at once: many beside the price of a launch, few beside those of a model


def merge_on_device(merges: Iterable[DeviceMerge], statistics: Statistics) -> bool:
    """Write the merged tensors, all on one device, and return whether all of them are finite.

    Tensors that come one after the other are launched together, so that a model costs few launches; `merges` may be
    made on the way. Waits for the device once, at the end. Raises what the methods' formulas raise.
    """
    waiting: dict[Variant, Batch] = {}
    bad: Tensor | None = None
    for merge in merges:
        if not merge.out.numel():
            continue
        bad = _nothing(merge.out) if bad is None else bad
        work = DeviceWork(merge, statistics)
        job = job_of(work)
        if job is None:
            bad += _by_formula(work)
            continue
        batch = waiting.setdefault(job.variant, Batch(job.variant))
        batch.add(job)
        if batch.elements >= _ELEMENTS:
            waiting.pop(job.variant).launch(bad, statistics)
    if bad is None:
        return True
    for batch in waiting.values():
        batch.launch(bad, statistics)
    return not bad.item()


def summary_on_device(stage: Stage, merge: DeviceMerge, statistics: Statistics) -> Summary:
    """Return what a stage finds in a tensor; where statistics are kept that tell it, nothing is read."""
    work = DeviceWork(merge, statistics)
    if stage is delta_magnitudes:
        return OfInputs(tuple(work.histogram(index).magnitudes for index in range(len(work.inputs))))
    return stage(work.ctx, *work.floats())


def _nothing(like: "Tensor") -> "Tensor":
    """Return a count of nothing on a tensor's device."""
    import torch

    return torch.zeros(1, dtype=torch.int64, device=like.device)


def _by_formula(work: DeviceWork) -> "Tensor":
    """Write what the formula says; return how many results are no finite numbers."""
    out = work.merge.out
    out.copy_(work.merge.method.apply(work.ctx, *work.floats(), work.params))
    return (~out.isfinite()).sum()
