"""mergekit's YAML gives every tensor the parameters that the recipe gives it, by mergekit's own rules of reading."""

from typing import Any

import pytest
import yaml

from evomerge.backends.weights.mergekit import NotExpressible, to_mergekit
from evomerge.recipe.groups import Grouping, Layout, layer_of
from evomerge.recipe.tree import Input, Merge, Per, Source, WeightRecipe
from evomerge.recipe.values import ByGroup, Gradient
from evomerge.strategies.merge.registry import get
from evomerge.strategies.merge.resolve import parameters_for

MODULES = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "input_layernorm")
LAYERS = 12
LAYOUT = Layout(
    (
        "model.embed_tokens.weight",
        *(f"model.layers.{layer}.{module}.weight" for layer in range(LAYERS) for module in MODULES),
        "model.norm.weight",
        "lm_head.weight",
    )
)
A, B, BASE = Source("./math"), Source("org/code", "v1"), Source("./base")


def value_of(setting: Any, tensor: str) -> Any:
    """What mergekit reads: the first filter within the name; a list of numbers is a gradient over layers."""
    if isinstance(setting, list) and isinstance(setting[0], dict):
        setting = next(entry["value"] for entry in setting if entry.get("filter", "") in tensor)
    if isinstance(setting, list):
        layer = layer_of(tensor)
        place = layer / (LAYERS - 1) if layer is not None else 0.0
        scaled = place * (len(setting) - 1)
        low = int(scaled)
        high = min(len(setting) - 1, low + 1)
        return setting[low] + (scaled - low) * (setting[high] - setting[low])
    return setting


def check_same(merge: Merge) -> dict[str, Any]:
    config = yaml.safe_load(to_mergekit(merge, LAYOUT, "BF16"))
    assert config["merge_method"] == merge.method
    assert config["out_dtype"] == "bfloat16"
    grouping = Grouping.of(merge, LAYOUT)
    for tensor in LAYOUT.tensors:
        params = parameters_for(merge, get(str(merge.method)), grouping.group(tensor), LAYOUT.depth(tensor))
        for name, value in params.merge.items():
            if name in ("scale", "t", "normalize"):
                assert value_of(config["parameters"]["lambda" if name == "scale" else name], tensor) == pytest.approx(
                    value
                )
        models = config["models"][-len(merge.inputs) :]
        for model, own in zip(models, params.inputs, strict=True):
            for name, value in own.items():
                assert value_of(model["parameters"][name], tensor) == pytest.approx(value)
    return config


def test_plain_numbers_are_written_out_with_their_defaults():
    config = check_same(Merge("ties", (Input(A, {"weight": 0.5}), Input(B)), base=BASE))
    assert config["base_model"] == "./base"
    assert [model["model"] for model in config["models"]] == ["./math", "org/code@v1"]
    assert config["models"][0]["parameters"] == {"weight": 0.5, "density": 0.2}
    assert config["parameters"] == {"lambda": 1.0, "normalize": True}
    assert config["dtype"] == "float32"


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties", "dare_linear", "dare_ties"])
def test_gradients_and_groups_reach_the_same_tensors(method: str):
    values = {"attention": 0.25, "mlp": Gradient((0.1, 0.9, 0.4)), "rest": 0.75}
    check_same(
        Merge(
            method,
            (Input(A, {"weight": ByGroup(values)}), Input(B, {"weight": Gradient((0.0, 1.0))})),
            base=BASE,
            per=Per(groups=("attention", "mlp", "rest")),
        )
    )


def test_roles_become_short_filters():
    weight = ByGroup({"attention": 0.25, "mlp": 0.5})
    merge = Merge("linear", (Input(A, {"weight": weight}),), per=Per(groups=("attention", "mlp", "rest")))
    filters = check_same(merge)["models"][0]["parameters"]["weight"]
    assert filters == [{"filter": ".self_attn.", "value": 0.25}, {"filter": ".mlp.", "value": 0.5}, {"value": 1.0}]


@pytest.mark.parametrize(
    "per",
    [
        Per(layers=5),
        Per(groups=("attention", "rest"), layers=3),
        Per(tensor=True),
        Per(groups=("norms", "head", "own", "rest")),
    ],
)
def test_every_kind_of_group_can_be_said(per: Per):
    merge = Merge("task_arithmetic", (Input(A),), base=BASE, per=per, groups={"own": ("*.q_proj.*",)})
    names = Grouping.of(merge, LAYOUT).names
    weight = ByGroup({name: number / 100 for number, name in enumerate(names)})
    check_same(Merge("task_arithmetic", (Input(A, {"weight": weight}),), base=BASE, per=per, groups=merge.groups))


def test_slerp_starts_at_the_base_or_the_first_model():
    t = ByGroup({"attention": Gradient((0.0, 0.5)), "rest": 0.5})
    per = Per(groups=("attention", "rest"))
    with_base = check_same_slerp(Merge("slerp", (Input(A),), base=BASE, params={"t": t}, per=per))
    without = check_same_slerp(Merge("slerp", (Input(A), Input(B)), params={"t": t}, per=per))
    assert (with_base["base_model"], with_base["models"]) == ("./base", [{"model": "./base"}, {"model": "./math"}])
    assert (without["base_model"], without["models"]) == ("./math", [{"model": "./math"}, {"model": "org/code@v1"}])


def check_same_slerp(merge: Merge) -> dict[str, Any]:
    config = yaml.safe_load(to_mergekit(merge, LAYOUT, "F16"))
    for tensor in LAYOUT.tensors:
        params = parameters_for(merge, get("slerp"), Grouping.of(merge, LAYOUT).group(tensor), LAYOUT.depth(tensor))
        assert value_of(config["parameters"]["t"], tensor) == pytest.approx(params.merge["t"])
    return config


def test_random_masks_are_said_to_differ():
    assert to_mergekit(Merge("dare_ties", (Input(A),), base=BASE), LAYOUT, "F32").startswith(
        "# mergekit draws other random masks"
    )


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        (A, "single model"),
        (Merge("linear", (Input(Merge("linear", (Input(A),))),)), "merges merges"),
        (Merge("linear", (Input(A),), base=BASE, refactor=4), "low rank"),
        (Merge("ties", (Input(A, {"weight": -1}),), base=BASE), "some are negative"),
        (Merge("ties", (Input(A),), base=BASE, params={"merge_func": "max"}), "no merge_func but"),
    ],
)
def test_what_cannot_be_said_has_a_reason(recipe: WeightRecipe, why: str):
    with pytest.raises(NotExpressible, match=why):
        to_mergekit(recipe, LAYOUT, "F32")
