"""mergekit's YAML gives every tensor the parameters that the recipe gives it, by mergekit's own rules of reading.

Read back, it is the recipe again: for every method that both have.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from evomerge.backends.weights.mergekit import to_mergekit
from evomerge.backends.weights.mergekit_values import NotExpressible
from evomerge.recipe.groups import Grouping, Layout, layer_of
from evomerge.recipe.mergekit.methods import METHODS, Parameter
from evomerge.recipe.mergekit.read import read_mergekit
from evomerge.recipe.tree import Input, Merge, Per, Slice, Source, Stack, WeightRecipe
from evomerge.recipe.values import ByGroup, Gradient, Params, Scalar
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


L1 = {"rescale": "l1"}
STOCK = {"clamp": False}
ONLY_THEIRS: Mapping[str, Params] = {
    **dict.fromkeys(("dare_linear", "dare_ties", "della", "della_linear"), L1),
    "model_stock": STOCK,
}
"""Where our default is nothing that mergekit has: what it has."""


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
            params=ONLY_THEIRS.get(method, {}),
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
    assert to_mergekit(Merge("dare_ties", (Input(A),), base=BASE, params=L1), LAYOUT, "F32").startswith(
        "# mergekit draws other random masks"
    )


def drawn(name: str) -> Merge:
    """A merge by a method of mergekit's, every parameter at a value that is no default, some by group or depth."""
    known = METHODS[name]
    declared = {parameter.name: parameter for parameter in get(known.ours).parameters}
    numbers = iter(range(3, 99))

    def other(parameter: Parameter) -> Scalar:
        default = declared[parameter.ours].default
        choices = list(parameter.words.values()) or declared[parameter.ours].choices
        left = [choice for choice in choices if choice != default]
        return left[0] if left else 7 if isinstance(default, int) else next(numbers) / 100

    def by_group(number: float) -> ByGroup:
        return ByGroup({"attention": number, "mlp": Gradient((number, number / 2, number / 3)), "rest": number / 4})

    own = [{parameter.ours: by_group(next(numbers) / 100) for parameter in known.models.values()} for _ in range(3)]
    params = {parameter.ours: other(parameter) for parameter in known.merge.values()}
    least, most = get(known.ours).needs.inputs
    with_base = known.base != "model"
    models = (A, B, Source("./prose"))[: 1 if known.base == "start" else most or max(least, 3)]
    return Merge(
        known.ours,
        tuple(map(Input, models, own)),
        BASE if with_base else None,
        params | dict(known.besides),
        per=Per(groups=("attention", "mlp", "rest")),
    )


def read_back(text: str, folder: Path) -> WeightRecipe:
    file = folder / "mergekit.yaml"
    file.write_text(text)
    found = read_mergekit(file)
    assert not found.notes
    return found.recipe


def parameters(merge: Merge, layout: Layout) -> Iterator[object]:
    grouping = Grouping.of(merge, layout)
    method = get(str(merge.method))
    for tensor in layout.tensors:
        yield parameters_for(merge, method, grouping.group(tensor), layout.depth(tensor), tensor)


def check_equal(merge: WeightRecipe, wanted: Merge, layout: Layout = LAYOUT) -> None:
    assert isinstance(merge, Merge)
    assert (merge.method, merge.base) == (wanted.method, wanted.base)
    assert [item.recipe for item in merge.inputs] == [item.recipe for item in wanted.inputs]
    assert list(parameters(merge, layout)) == list(parameters(wanted, layout))


@pytest.mark.parametrize("name", METHODS)
def test_what_is_written_reads_back_as_the_recipe(name: str, tmp_path: Path):
    merge = drawn(name)
    check_equal(read_back(to_mergekit(merge, LAYOUT, "BF16"), tmp_path), merge)


@pytest.mark.parametrize("name", METHODS)
def test_our_defaults_read_back_as_ours(name: str, tmp_path: Path):
    made = drawn(name)
    inputs = tuple(Input(item.recipe) for item in made.inputs)
    merge = Merge(made.method, inputs, made.base, ONLY_THEIRS.get(METHODS[name].ours, {}))
    check_equal(read_back(to_mergekit(merge, LAYOUT, "BF16"), tmp_path), merge)


@pytest.mark.parametrize("name", [name for name, known in METHODS.items() if known.base == "optional"])
def test_methods_whose_base_may_be_left_out_read_back_without_one(name: str, tmp_path: Path):
    merge = Merge(METHODS[name].ours, drawn(name).inputs, per=Per(groups=("attention", "mlp", "rest")))
    check_equal(read_back(to_mergekit(merge, LAYOUT, "BF16"), tmp_path), merge)


def part(source: Source, first: int, end: int) -> Stack:
    return Stack((Slice(source, (first, end)),))


def of_layers(name: str, first: int, end: int, params: Params) -> Merge:
    inputs = (Input(part(A, first, end), params), Input(part(B, first + 1, end + 1)))
    return Merge(name, inputs, part(BASE, first, end) if METHODS[name].base == "base" else None)


@pytest.mark.parametrize("name", ["linear", "ties", "model_stock"])
def test_layers_that_are_merged_read_back_as_the_slices_they_are(name: str, tmp_path: Path):
    params: Params = {"weight": Gradient((0.25, 0.75))} if METHODS[name].models else {}
    merges = [of_layers(name, 0, 5, params), of_layers(name, 3, 10, {})]
    merges = [Merge(one.method, one.inputs, one.base, ONLY_THEIRS.get(name, {})) for one in merges]
    alone = read_back(to_mergekit(merges[0], LAYOUT, "BF16"), tmp_path)
    check_equal(alone, merges[0])
    stack = Stack(tuple(map(Slice, merges)), head="last")
    read = read_back(to_mergekit(stack, LAYOUT, "BF16"), tmp_path)
    assert isinstance(read, Stack)
    assert (read.base, read.head) == (None, "last")
    for found, wanted in zip(read.slices, merges, strict=True):
        assert (found.layers, found.scale) == (None, 1)
        check_equal(found.recipe, wanted)


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        (A, "single model"),
        (Merge("linear", (Input(Merge("linear", (Input(A),))),)), "merges merges"),
        (Merge("linear", (Input(A),), base=BASE, refactor=4), "low rank"),
        (Merge("ties", (Input(A, {"weight": -1}),), base=BASE), "some are negative"),
        (Merge("ties", (Input(A),), BASE, {"merge_func": "max"}), "its merge_func is max, .* ties .* mean and sum"),
        (Merge("dare_ties", (Input(A),), BASE), "its rescale is unbiased, and dare_ties of mergekit has only l1"),
        (Merge("model_stock", (Input(A), Input(B)), BASE), "its clamp is true, and model_stock .* only false"),
        (Merge("ties", (Input(A),), BASE, {"scope": "model"}), "its scope is model, and ties .* has only tensor"),
        (Merge("sce", (Input(A),), BASE, {"scale": ByGroup({"mlp": 0.5})}), "its scale is 0.5, and sce .* only 1.0"),
        (Merge("widen", (Input(A),), BASE), "no method that means what widen means here"),
        (Merge("linear", (Input(A), Input(A))), "there twice"),
        (Merge("ties", (Input(A), Input(BASE)), BASE), "its base is one of its models"),
        (Merge("linear", (Input(Source("./a+b")),)), r"a \+ or @ in a model's name \(\./a\+b\)"),
        (Merge("linear", (Input(part(A, 0, 2)), Input(B))), "whole models with parts"),
        (Stack((Slice(of_layers("linear", 0, 2, {})), Slice(A, (2, 4))), head="last"), "merged of layers alike"),
        (
            Stack((Slice(of_layers("linear", 0, 2, {})), Slice(of_layers("sce", 2, 4, {}))), head="last"),
            "differ in method or base",
        ),
        (
            Stack((Slice(Merge("linear", (Input(part(A, 0, 2)),))), Slice(of_layers("linear", 2, 4, {}))), head="last"),
            "leaves some out in the head",
        ),
        (
            Merge(
                "linear",
                (Input(part(A, 0, 12), {"weight": ByGroup({f"layers_{n}_of_5": n / 7 for n in range(1, 6)})}),),
                per=Per(layers=5),
            ),
            "cannot tell these groups apart",
        ),
    ],
)
def test_what_cannot_be_said_has_a_reason(recipe: WeightRecipe, why: str):
    with pytest.raises(NotExpressible, match=why):
        to_mergekit(recipe, LAYOUT, "F32")
