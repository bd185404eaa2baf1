"""Computing a plan: one tensor of a merge in float32, or the factors of one module of a merge that stays an adapter.

Both are asked for one name at a time, so memory holds one tensor of each model. An adapter counts as its base plus its
change; a merge that is an adapter is computed from its factors wherever it stands, so it is one model in all places.
"""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, assert_never, cast

from evomerge.backends.weights.adapter import Adapter
from evomerge.backends.weights.artifact import LowRank
from evomerge.backends.weights.checkpoint import Checkpoint
from evomerge.backends.weights.merging import TensorMerge
from evomerge.backends.weights.models import module_of, weight_of
from evomerge.backends.weights.plan import MergePlan, Plan, StackPlan
from evomerge.backends.weights.raw import Raw
from evomerge.backends.weights.tensors import all_finite
from evomerge.backends.weights.whole import Wholes
from evomerge.errors import CandidateError, ConfigError
from evomerge.strategies.merge.protocol import Stage, Summary, TensorContext

if TYPE_CHECKING:
    from torch import Tensor


def tensor_of(plan: Plan, name: str, under: "Tensor | None" = None) -> "Tensor":
    """Return a tensor of a plan in float32; `under` is the base's, for an adapter to stand on.

    Raises CandidateError where the method finds no result for its parameters.
    """
    match plan:
        case Checkpoint():
            return plan.float32(name)
        case Adapter():
            return _with_change(under, _factors_of_adapter(plan, module_of(name)))
        case MergePlan():
            if plan.low_rank:
                own = None if plan.base is None else tensor_of(plan.base, name)
                return _with_change(own, factors_of(plan, module_of(name)))
            return _merged(plan, name)
        case StackPlan():
            child, place = plan.place(name)
            found = tensor_of(child, place.name)
            return found if place.scale == 1 else found * place.scale
        case _:
            assert_never(plan)


def stored_of(plan: Plan, name: str) -> Raw:
    """Return a tensor as its checkpoint stores it, which for a merge is that of its base or first whole model."""
    match plan:
        case Checkpoint():
            return plan.raw(name)
        case Adapter():
            raise ConfigError(f"{plan.folder} is an adapter, and has no {name} of its own")
        case MergePlan():
            models = [item for item in (plan.base, *plan.inputs) if item is not None and not isinstance(item, Adapter)]
            return stored_of(models[0], name)
        case StackPlan():
            child, place = plan.place(name)
            return stored_of(child, place.name)
        case _:
            assert_never(plan)


def factors_of(plan: Plan, module: str) -> LowRank | None:
    """Return the change of a module by an adapter or a low-rank merge, or None where it changes nothing.

    An exact merge joins the factors of its inputs: the rows of every `a` one below the other, the columns of every `b`,
    times the input's weight, side by side. Otherwise, and where `refactor` asks for a smaller rank, it is the best
    approximation of that rank (truncated singular value decomposition; computed in float64 from factors, in float32
    from a whole weight).
    """
    match plan:
        case Checkpoint() | StackPlan():
            return None
        case Adapter():
            return _factors_of_adapter(plan, module)
        case MergePlan():
            rank = plan.rank(module)
            if rank == 0:
                return None
            if not plan.exact:
                return _decomposed(_change(plan, weight_of(module)), rank)
            joined = _joined(plan, module)
            return joined if joined.a.shape[0] == rank else _truncated(joined, rank)
        case _:
            assert_never(plan)


def write_tensor(plan: Plan, name: str, out: Raw) -> bool:
    """Compute a tensor of a plan into `out`, rounded once, and return whether it is finite. Raises as `tensor_of`."""
    plan, name = _placed(plan, name)
    if isinstance(plan, MergePlan) and not plan.low_rank and plan.touches(name):
        return _merge_into(plan, name, out)
    if isinstance(plan, Checkpoint) and (there := plan.raw(name)).dtype == out.dtype:
        return _copied(there, out)
    result = out.tensor()
    result.copy_(tensor_of(plan, name))
    return all_finite(result)


def streams(plan: Plan) -> bool:
    """Return whether a plan's tensors, each by itself, go from mapped files through a kernel to the result.

    Then they take next to no memory, and may be merged several at a time.
    """
    from evomerge.backends.weights.kernels.methods import kernel_of

    if not isinstance(plan, MergePlan) or plan.low_rank or plan.staged:
        return False
    models = (*plan.inputs, *(() if plan.base is None else (plan.base,)))
    return kernel_of(plan.method) is not None and all(type(model) is Checkpoint for model in models)


def _merged(plan: MergePlan, name: str) -> "Tensor":
    if plan.base is not None and not plan.touches(name):
        return tensor_of(plan.base, name)
    out = Raw.empty("F32", stored_of(plan, name).shape)
    _merge_into(plan, name, out)
    return out.tensor()


def _merge_into(plan: MergePlan, name: str, out: Raw) -> bool:
    context = plan.context(name)
    if stages := plan.stages(name):
        wholes = Wholes(plan.staged, plan.identity, plan.context, partial(_summary, plan), plan.statistics)
        context = replace(context, whole=wholes.of(name, stages))
    return _merge(plan, context).into(out)


def _summary(plan: MergePlan, stage: Stage, context: TensorContext) -> Summary:
    return _merge(plan, context).summary(stage)


def _merge(plan: MergePlan, context: TensorContext) -> TensorMerge:
    """Return the merge of a tensor, with what its method gets read: the base, where it uses one, and every input."""
    name = context.name
    base = None if plan.base is None else _readable(plan.base, name, None)
    under = base.float32() if base is not None and any(isinstance(item, Adapter) for item in plan.inputs) else None
    inputs = tuple(_readable(item, name, under) for item in plan.inputs)
    used = None if plan.method.needs.base == "unused" else base
    return TensorMerge(
        plan.method, context, plan.parameters(name), used, inputs, plan.identity, plan.statistics, plan.lasting
    )


def _readable(plan: Plan, name: str, under: "Tensor | None") -> Raw:
    """Return a tensor for a merge to read: as it is stored where it is in a file, else in float32."""
    plan, name = _placed(plan, name)
    return plan.raw(name) if isinstance(plan, Checkpoint) else Raw.of(tensor_of(plan, name, under))


def _copied(there: Raw, out: Raw) -> bool:
    from evomerge.backends.weights.kernels.finite import all_finite
    from evomerge.backends.weights.kernels.threads import Threads

    out.elements[:] = there.elements
    return all_finite(out.elements, Threads(1))


def _placed(plan: Plan, name: str) -> tuple[Plan, str]:
    """Return the plan that a tensor of a stack comes from unchanged, and its name there; else what is given."""
    while isinstance(plan, StackPlan):
        child, place = plan.place(name)
        if place.scale != 1:
            break
        plan, name = child, place.name
    return plan, name


def _with_change(base: "Tensor | None", change: LowRank | None) -> "Tensor":
    import torch

    if base is None:
        raise ConfigError("an adapter can be merged only where the recipe names its base; write the model as base:")
    return base if change is None else torch.addmm(base, change.b, change.a)


def _factors_of_adapter(adapter: Adapter, module: str) -> LowRank | None:
    return LowRank(*adapter.factors(module)) if module in adapter.modules else None


def _joined(plan: MergePlan, module: str) -> LowRank:
    import torch

    weighted = [(factors_of(item, module), weight) for item, weight in plan.weighted(module).items()]
    there = [(change, weight) for change, weight in weighted if change is not None]
    return LowRank(
        a=torch.cat([change.a for change, _ in there]),
        b=torch.cat([change.b * weight for change, weight in there], dim=1),
    )


def _change(plan: MergePlan, name: str) -> "Tensor":
    own = None if plan.base is None else tensor_of(plan.base, name)
    return _merged(plan, name) - _with_change(own, None)


def _decomposed(change: "Tensor", rank: int) -> LowRank:
    import torch

    if not all_finite(change):
        raise CandidateError("the merged weights are not finite, so they cannot be refactored; use smaller weights")
    left, values, right = cast("tuple[Tensor, Tensor, Tensor]", torch.linalg.svd(change, full_matrices=False))
    return LowRank(a=right[:rank].contiguous(), b=left[:, :rank] * values[:rank])


def _truncated(change: LowRank, rank: int) -> LowRank:
    """Reduce a product's rank without ever forming the product: the SVD of the small matrix between two QR factors."""
    import torch

    left, inner_left = cast("tuple[Tensor, Tensor]", torch.linalg.qr(change.b.double()))
    right, inner_right = cast("tuple[Tensor, Tensor]", torch.linalg.qr(change.a.double().T))
    small = _decomposed(inner_left @ inner_right.T, rank)
    return LowRank(a=(small.a @ right.T).float(), b=(left @ small.b).float())
