"""LiNeS on top of any other merge, and layer swapping, of whole models and of adapters."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from evomerge.backends.weights.artifact import AdapterArtifact
from evomerge.backends.weights.store import WeightStore
from evomerge.recipe.groups import layer_of
from evomerge.recipe.tree import Input, Merge, Source
from tests.backends.weights.family import Zoo

LAYERS = 3


def merged(store: WeightStore, recipe: Merge) -> dict[str, np.ndarray]:
    resolved = store.resolve(recipe, Path("/"))
    return {name: tensor.double().numpy() for name, tensor in store.tensors(resolved)}


def scale(name: str, alpha: float, beta: float) -> float:
    layer = layer_of(name)
    return alpha if layer is None else alpha + beta * layer / (LAYERS - 1)


def test_lines_scales_what_another_merge_changed(store: WeightStore, zoo: Zoo, experts: list[Path]):
    base = Source(str(zoo.base))
    models = tuple(Input(Source(str(folder)), {"density": 0.5}) for folder in experts)
    inner = Merge("ties", models, base)
    whole = merged(store, Merge("lines", (Input(inner),), base, {"alpha": 0.2, "beta": 0.7}))
    start, end = (dict(store.tensors(store.resolve(recipe, Path("/")))) for recipe in (base, inner))
    for name, found in whole.items():
        origin, other = start[name].double().numpy(), end[name].double().numpy()
        np.testing.assert_allclose(found, origin + scale(name, 0.2, 0.7) * (other - origin), atol=1e-6)


def test_lines_over_a_sum_of_adapters_is_an_adapter(store: WeightStore, zoo: Zoo, adapters: list[Path]):
    base = Source(str(zoo.base))
    inner = Merge("task_arithmetic", tuple(Input(Source(str(folder)), {"weight": 0.5}) for folder in adapters), base)
    outer = Merge("lines", (Input(inner),), base, {"alpha": 0.3, "beta": 0.4})
    resolved = [store.resolve(recipe, Path("/")) for recipe in (inner, outer)]
    ranks = [artifact.rank for artifact in map(store.artifact, resolved) if isinstance(artifact, AdapterArtifact)]
    assert len(ranks) == 2
    assert ranks[0] == ranks[1]
    change, scaled = (dict(store.low_rank(recipe)) for recipe in resolved)
    assert change.keys() == scaled.keys()
    for module, own in scaled.items():
        torch.testing.assert_close(own.b @ own.a, scale(module, 0.3, 0.4) * change[module].b @ change[module].a)


def test_layer_swap_of_adapters_takes_each_layer_from_one_of_them(store: WeightStore, zoo: Zoo, adapters: list[Path]):
    base, params = Source(str(zoo.base)), {"bottom": 1, "top": 1, "transition": 0}
    pair = [Source(str(folder)) for folder in adapters[:2]]
    recipe = store.resolve(Merge("layer_swap", tuple(map(Input, pair)), base, dict[str, Any](params)), Path("/"))
    assert isinstance(store.artifact(recipe), AdapterArtifact)
    own = [dict(store.low_rank(store.resolve(Merge("linear", (Input(model),), base), Path("/")))) for model in pair]
    for module, found in store.low_rank(recipe).items():
        expected = own[1 if layer_of(module) == 1 else 0].get(module)  # None where the adapter has no such module
        change = found.b @ found.a
        torch.testing.assert_close(change, change * 0 if expected is None else expected.b @ expected.a)
