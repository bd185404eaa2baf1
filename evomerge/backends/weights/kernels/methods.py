"""Which kernel a method has: found by the method's kind (a weighted sum, a mixture), or by its name.

What a kernel writes is the method's result, rounded once to the storage dtype. Families of kernels have files of their
own; this is the table.
"""

from collections.abc import Callable, Mapping

from evomerge.backends.weights.kernels import (
    balance,
    dropped,
    entries,
    histograms,
    importance,
    ranks,
    sums,
    trims,
    variance,
)
from evomerge.backends.weights.kernels.work import Kernel, Sources
from evomerge.strategies.merge import pcb
from evomerge.strategies.merge.protocol import Method, Stage, Summary
from evomerge.strategies.merge.whole import OfInputs, delta_magnitudes

_NAMED: Mapping[str, Kernel] = {
    "arcee_fusion": importance.arcee_fusion,
    "breadcrumbs": trims.breadcrumbs,
    "breadcrumbs_ties": trims.breadcrumbs_ties,
    "dare_linear": dropped.dare_linear,
    "dare_ties": dropped.dare_ties,
    "consensus": entries.consensus,
    "della": ranks.della,
    "della_linear": ranks.della_linear,
    "emr": entries.emr,
    "magmax": entries.magmax,
    "nearswap": entries.nearswap,
    "ram": entries.ram,
    "ram_plus": entries.ram_plus,
    "pcb": balance.pcb,
    "sce": variance.sce,
    "ties": trims.ties,
}


def kernel_of(method: Method) -> Kernel | None:
    """Return a method's kernel, or None where it works through its formula."""
    if method.coefficients is not None:
        return sums.coefficients
    if method.mixture is not None:
        return sums.mixture
    return _NAMED.get(method.name)


def summary_of(stage: Stage) -> Callable[[Sources], Summary] | None:
    """Return what finds out the same as a stage, or None where the stage's formula does."""
    return _SUMMARIES.get(stage)


def _delta_magnitudes(sources: Sources) -> OfInputs[histograms.Magnitudes]:
    return OfInputs(tuple(histograms.of_delta(sources, index).magnitudes for index in range(len(sources.inputs))))


_SUMMARIES: Mapping[Stage, Callable[[Sources], Summary]] = {
    delta_magnitudes: _delta_magnitudes,
    pcb.count_lengths: balance.all_lengths,
    pcb.count_balances: balance.all_balances,
}
