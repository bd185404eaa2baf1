"""Which layer gets how much of which model: LiNeS and layer swapping."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.recipe.groups import Layout
from evomerge.strategies.merge.protocol import TensorContext
from evomerge.strategies.merge.registry import get
from tests.strategies.merge import reference_mixtures as reference
from tests.strategies.merge.support import array, parameters, tensor

OUTSIDE = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")


def layout(layers: int) -> Layout:
    return Layout((*OUTSIDE, *(f"model.layers.{layer}.mlp.weight" for layer in range(layers))))


def context(name: str, layers: int) -> TensorContext:
    return TensorContext(name, layout(layers).depth(name), layers, 0, ("a", "b"))


def scale(name: str, layers: int, alpha: float, beta: float) -> float:
    given_ = parameters("lines", 1, {"alpha": alpha, "beta": beta}, {})
    return float(get("lines").apply(context(name, layers), tensor(0.0), [tensor(1.0)], given_))


def source(name: str, layers: int, bottom: float, top: float, transition: float) -> str:
    """Return L, T or A for a tensor: the language's, the task's, their average."""
    given_ = parameters("layer_swap", 2, {"bottom": bottom, "top": top, "transition": transition}, {})
    found = get("layer_swap").apply(context(name, layers), None, [tensor(0.0), tensor(1.0)], given_)
    return {0.0: "L", 0.5: "A", 1.0: "T"}[float(found)]


def sources(layers: int, bottom: float, top: float, transition: float) -> str:
    names = [f"model.layers.{layer}.mlp.weight" for layer in range(layers)]
    return "".join(source(name, layers, bottom, top, transition) for name in names)


def test_lines_rises_from_the_first_layer_to_the_last() -> None:
    found = [scale(f"model.layers.{layer}.mlp.weight", 4, 0.2, 0.6) for layer in range(4)]
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8])


@pytest.mark.parametrize("name", OUTSIDE)
def test_lines_scales_with_alpha_outside_the_layers(name: str) -> None:
    assert scale(name, 4, 0.2, 0.6) == pytest.approx(0.2)


def test_lines_scales_a_single_layer_with_alpha() -> None:
    assert scale("model.layers.0.mlp.weight", 1, 0.2, 0.6) == pytest.approx(0.2)


@given(layers=st.integers(1, 9), layer=st.integers(0, 8), alpha=st.floats(0, 1), beta=st.floats(0, 1))
def test_lines(layers: int, layer: int, alpha: float, beta: float) -> None:
    layer = min(layer, layers - 1)
    base, model = tensor([1.0, 2.0, -3.0]), tensor([0.5, 2.5, 3.0])
    given_ = parameters("lines", 1, {"alpha": alpha, "beta": beta}, {})
    found = get("lines").apply(context(f"model.layers.{layer}.mlp.weight", layers), base, [model], given_)
    expected = reference.lines(array(base), array(model), alpha, beta, layer=layer, layers=layers)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


def test_layer_swap_takes_top_and_bottom_from_the_first_model() -> None:
    assert sources(8, bottom=2, top=1, transition=1) == "LLATTTAL"


def test_layer_swap_without_bottom_and_top_is_the_second_model() -> None:
    assert sources(4, 0, 0, 0) == sources(4, 0, 0, 2) == "TTTT"
    assert {source(name, 4, 0, 0, 2) for name in OUTSIDE} == {"T"}


def test_layer_swap_gives_what_is_no_layer_to_the_nearest() -> None:
    embeddings, norm, head = OUTSIDE
    assert [source(name, 8, 1, 0, 0) for name in (embeddings, norm, head)] == ["L", "T", "T"]
    assert [source(name, 8, 0, 1, 0) for name in (embeddings, norm, head)] == ["T", "L", "L"]


def test_layer_swap_rounds_to_whole_layers() -> None:
    assert sources(8, 1.6, 0.7, 0.9) == sources(8, 2, 1, 1)


@given(layers=st.integers(1, 12), bottom=st.integers(0, 13), top=st.integers(0, 13), transition=st.integers(0, 5))
def test_layer_swap(layers: int, bottom: int, top: int, transition: int) -> None:
    assert sources(layers, bottom, top, transition) == "".join(reference.layer_sources(layers, bottom, top, transition))


@pytest.mark.parametrize("name", ["lines", "layer_swap"])
def test_weights_add_up_to_one_so_that_adapters_stay_adapters(name: str) -> None:
    method = get(name)
    assert method.coefficients is not None
    for tensor_name in layout(5).tensors:
        given_ = parameters(name, method.needs.inputs[0], {}, {})
        found = method.coefficients(context(tensor_name, 5), given_)
        assert found.base + sum(found.inputs) == pytest.approx(1.0)
